//! HTTP.
pub(crate) mod serve {
    pub(crate) async fn serve(
        _s: tokio::net::TcpListener,
        _x: std::sync::Arc<crate::server::shared::Shared>,
    ) {
    }
}
