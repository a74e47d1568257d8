//! `node.yaml` of a gateway: a short file is complete, and each mistake is named with its key and what to do.

use node_api::gateway::GatewayConfig;

const SHORT: &str = "\
configVersion: 1
chainId: demo-main
role: gateway
gateway:
  backends:
    submit: [{address: 'demo-main-0-rpc.demo.svc:7200'}]
";

fn problem(old: &str, new: &str) -> String {
    let text = SHORT.replace(old, new);
    assert_ne!(text, SHORT, "{old:?} is in the file");
    GatewayConfig::from_yaml(&text).expect_err("is refused").to_string()
}

#[test]
fn a_short_file_is_complete_and_is_written_out_whole() {
    let config = GatewayConfig::from_yaml(SHORT).expect("is accepted");
    let limits = &config.gateway.limits;
    assert_eq!((limits.user_per_minute, limits.ip_per_minute, limits.service_per_minute), (1_000, 500, 10_000));
    assert!(config.gateway.authentication.anonymous_roles.is_empty());
    let written = config.to_yaml().expect("is written");
    assert_eq!(GatewayConfig::from_yaml(&written).expect("is read again"), config);
}

#[test]
fn each_mistake_is_named_with_its_key() {
    let cases = [
        ("  backends:", "  surprise: 1\n  backends:", "gateway.surprise: unknown field `surprise`"),
        ("role: gateway", "role: validator", "role: unknown variant `validator`"),
        ("svc:7200'}", "svc:7200', weight: 0}", "gateway.backends.submit[0].weight: 0 is not in 1 to 100"),
        ("submit: [{address: 'demo-main-0-rpc.demo.svc:7200'}]", "submit: []", "gateway.backends.submit: is empty"),
        ("  backends:", "  corsOrigins: [nowhere]\n  backends:", "gateway.corsOrigins[0]: is no origin"),
        ("  backends:", "  limits: {ipPerMinute: 0}\n  backends:", "gateway.limits.ipPerMinute: 0 is not in 1 to"),
        (
            "  backends:",
            "  authentication: {anonymousRoles: [guest]}\n  backends:",
            "gateway.authentication.anonymousRoles: \"guest\" is not in gateway.roles",
        ),
        (
            "  backends:",
            "  authentication: {issuers: [{url: 'http://idp', audiences: [a]}]}\n  backends:",
            "gateway.authentication.issuers[0].url: \"http://idp\" is not a https URL",
        ),
        (
            "  backends:",
            "  authentication: {issuers: [{url: 'https://idp', audiences: []}]}\n  backends:",
            "gateway.authentication.issuers[0].audiences: is empty",
        ),
        ("  backends:", "  edge: {plaintext: true, tlsDirectory: /x}\n  backends:", "gateway.edge.plaintext: is set"),
    ];
    for (old, new, expected) in cases {
        let found = problem(old, new);
        assert!(found.starts_with(expected), "{found:?} does not start with {expected:?}");
    }
}
