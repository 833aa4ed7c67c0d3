use super::*;

#[test]
fn the_kernel_is_told_where_to_report() {
    let parameters = BootParameters {
        report_url: "http://10.88.0.1:8080/v1/report".to_owned(),
        authorized_keys_url: "http://10.88.0.1:8080/v1/authorized-keys".to_owned(),
        mac: Some("52:54:00:00:00:01".to_owned()),
    };
    insta::assert_snapshot!(parameters.words().join(" "), @"undercroft.report=http://10.88.0.1:8080/v1/report undercroft.authorized-keys=http://10.88.0.1:8080/v1/authorized-keys undercroft.mac=52:54:00:00:00:01");
}
