//! TFTP.
pub(crate) mod serve {
    pub(crate) async fn serve(
        _s: tokio::net::UdpSocket,
        _i: String,
        _x: std::sync::Arc<crate::server::shared::Shared>,
    ) {
    }
}
