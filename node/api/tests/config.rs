//! `node.yaml`: what is read, what is written, and what each mistake is answered with.

use std::path::Path;

use node_api::config::{ConfigError, Instance, NodeConfig, NodeRole};

const SMALLEST: &str = "\
configVersion: 1
chainId: demo-main
role: validator
instance: {kind: kubernetes}
";

const WHOLE: &str = "\
configVersion: 1
chainId: demo-main
role: observer
identityFile: /keys/identity.pem
tlsDirectory: /tls
dataDirectory: /data
listen:
  p2p: 127.0.0.1:1
  grpc: '[::1]:2'
  http: 0.0.0.0:0
peers:
- identity: abababababababababababababababababababababababababababababababab
  address: demo-main-0-p2p.demo.svc:7100
- identity: cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd
  address: '[::1]:7100'
instance:
  kind: standalone
  id: 8b3b1b1e-4c4a-4c53-8c0f-0f7a4e0a9d11
logLevel: debug
";

#[test]
fn the_smallest_file_gets_the_documented_defaults() {
    let config = NodeConfig::from_yaml(SMALLEST).expect("valid");
    assert_eq!(config.role, NodeRole::Validator);
    assert_eq!(config.instance, Instance::Kubernetes);
    let expected = "\
configVersion: 1
chainId: demo-main
role: validator
identityFile: /etc/althing/identity/identity.pem
tlsDirectory: /etc/althing/tls
dataDirectory: /var/lib/althing
listen:
  p2p: 0.0.0.0:7100
  grpc: 0.0.0.0:7200
  http: 0.0.0.0:7300
peers: []
instance:
  kind: kubernetes
logLevel: info
";
    assert_eq!(config.to_yaml().expect("writes"), expected);
}

#[test]
fn a_whole_file_is_written_as_it_was_read() {
    assert_eq!(NodeConfig::from_yaml(WHOLE).and_then(|config| config.to_yaml()).expect("valid"), WHOLE);
}

#[test]
fn every_mistake_names_its_key_and_what_to_do() {
    let without = |line: &str| SMALLEST.replace(line, "");
    let with = |from: &str, to: &str| SMALLEST.replace(from, to);
    let and = |text: &str| format!("{SMALLEST}{text}");
    let peer =
        |identity: &str, address: &str| and(&format!("peers: [{{identity: {identity}, address: '{address}'}}]\n"));
    let ab = "ab".repeat(32);
    let cases = [
        (
            without("configVersion: 1\n"),
            "configVersion: this program reads version 1, the file names none: write `configVersion: 1`, or use the program version that the file was made for",
        ),
        (
            format!("{}later: true\n", with("configVersion: 1", "configVersion: 2")),
            "configVersion: this program reads version 1, the file names 2: write `configVersion: 1`, or use the program version that the file was made for",
        ),
        (
            with("configVersion: 1", "configVersion: one"),
            "configVersion: this program reads version 1, the file names no number: write `configVersion: 1`, or use the program version that the file was made for",
        ),
        (without("chainId: demo-main\n"), "missing field `chainId`"),
        (
            and("peer: []\n"),
            "peer: unknown field `peer`, expected one of `configVersion`, `chainId`, `role`, `identityFile`, `tlsDirectory`, `dataDirectory`, `listen`, `peers`, `p2p`, `instance`, `logLevel`, `storage`, `stateSync` at line 5 column 1",
        ),
        (
            with("demo-main", "Demo"),
            "chainId: \"Demo\" is not a chain id: use 1 to 63 of a-z, 0-9 and -, with a letter or digit at both ends",
        ),
        (
            with("validator", "voter"),
            "role: unknown variant `voter`, expected `validator` or `observer` at line 3 column 7",
        ),
        (
            with("{kind: kubernetes}", "{kind: standalone}"),
            "instance: kind standalone needs an id: write {kind: kubernetes}, or {kind: standalone, id: <a UUID>}",
        ),
        (
            with("{kind: kubernetes}", "{kind: standalone, id: me}"),
            "instance: the id is not a UUID: write {kind: kubernetes}, or {kind: standalone, id: <a UUID>}",
        ),
        (
            with("{kind: kubernetes}", "{kind: kubernetes, id: me}"),
            "instance: kind kubernetes takes no id, the pod's UID is used: write {kind: kubernetes}, or {kind: standalone, id: <a UUID>}",
        ),
        (and("listen: {p2p: 7100}\n"), "listen.p2p: invalid socket address syntax at line 5 column 15"),
        (
            and("logLevel: loud\n"),
            "logLevel: unknown variant `loud`, expected one of `error`, `warn`, `info`, `debug`, `trace` at line 5 column 11",
        ),
        (and("dataDirectory: ''\n"), "dataDirectory: is empty: leave the key out to use the default, or write a path"),
        (
            peer("AB", "a:1"),
            "peers[0].identity: \"AB\" is not an identity: write the 64 lower-case hex digits that `althing-node keygen` prints at line 5 column 9",
        ),
        (
            peer(&ab, "demo"),
            "peers[0].address: \"demo\" is not an address: write host:port, as in demo-main-0-p2p.demo.svc:7100 or [::1]:7100 at line 5 column 9",
        ),
        (
            and(&format!("peers: [{{identity: {ab}, address: 'a:1'}}, {{identity: {ab}, address: 'b:1'}}]\n")),
            "peers[1].identity: abababababababababababababababababababababababababababababababab is named twice: give each peer one entry",
        ),
    ];
    let answer = |text: &str| NodeConfig::from_yaml(text).map_or_else(|error| error.to_string(), |_| "read".to_owned());
    let actual: Vec<String> = cases.iter().map(|(text, _)| answer(text)).collect();
    let expected: Vec<&str> = cases.iter().map(|(_, reason)| *reason).collect();
    assert_eq!(actual, expected);
}

#[test]
fn a_missing_file_is_named() {
    let error = NodeConfig::load(Path::new("/nowhere/node.yaml")).expect_err("not there");
    assert!(matches!(error, ConfigError::Read { .. }));
    assert_eq!(
        error.to_string(),
        "failed to read the configuration /nowhere/node.yaml: No such file or directory (os error 2)"
    );
}

#[test]
fn an_observer_keeps_events_and_a_validator_only_when_it_is_told_to() {
    let keeps = |text: &str, role| {
        NodeConfig::from_yaml(&format!("{SMALLEST}{text}")).expect("valid").storage.keeps_events(role)
    };
    let both = |text: &str| [NodeRole::Observer, NodeRole::Validator].map(|role| keeps(text, role));
    assert_eq!(both(""), [true, false]);
    assert_eq!(both("storage: {events: true}\n"), [true, true]);
    assert_eq!(both("storage: {events: false, keepBlocks: 128}\n"), [false, false]);
}

#[test]
fn what_is_kept_has_bounds_and_is_written_only_when_it_is_set() {
    let config = NodeConfig::from_yaml(SMALLEST).expect("valid");
    assert_eq!((config.storage.keep_blocks, config.state_sync.after_blocks), (None, None));
    let text = config.to_yaml().expect("valid");
    assert!(!text.contains("storage") && !text.contains("stateSync"), "{text}");
    let set = format!("{SMALLEST}storage: {{keepBlocks: 128}}\nstateSync: {{afterBlocks: 32}}\n");
    let config = NodeConfig::from_yaml(&set).expect("valid");
    assert_eq!((config.storage.keep_blocks, config.state_sync.after_blocks), (Some(128), Some(32)));
    assert_eq!(NodeConfig::from_yaml(&config.to_yaml().expect("valid")).expect("valid"), config);
    let mistake = |text: &str| NodeConfig::from_yaml(&format!("{SMALLEST}{text}\n")).expect_err("refused").to_string();
    assert_eq!(
        mistake("storage: {keepBlocks: 127}"),
        "storage.keepBlocks: 127 blocks: write at least 128, or leave the key out to keep all"
    );
    assert_eq!(
        mistake("stateSync: {afterBlocks: 31}"),
        "stateSync.afterBlocks: 31 blocks: write at least 32, or leave the key out"
    );
    assert!(mistake("storage: {keep: 200}").contains("unknown field `keep`"));
    let hash = "5a".repeat(32);
    let pinned = format!("{SMALLEST}stateSync:\n  checkpoint:\n    height: 7\n    hash: {hash}\n    file: /c.light\n");
    let config = NodeConfig::from_yaml(&pinned).expect("valid");
    assert_eq!(NodeConfig::from_yaml(&config.to_yaml().expect("valid")).expect("valid"), config);
    let checkpoint = config.state_sync.checkpoint.expect("it is set");
    assert_eq!((checkpoint.height, checkpoint.hash.to_string()), (7, hash));
    assert!(
        mistake("stateSync: {checkpoint: {height: 7, hash: 5a, file: /c}}")
            .contains("not a hash: write the 64 hex digits")
    );
}

#[test]
fn a_node_says_the_addresses_it_is_told_or_its_own_entry_or_where_it_listens() {
    let own = "ab".repeat(32);
    let advertised = |more: &str| {
        let config = NodeConfig::from_yaml(&format!("{SMALLEST}{more}")).expect("valid");
        let written = config.to_yaml().expect("writes");
        assert_eq!(NodeConfig::from_yaml(&written).expect("valid"), config);
        let addresses = config.advertised(&own.parse().expect("an identity"));
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let entry = format!("peers: [{{identity: {own}, address: 'a.svc:7100'}}]\n");
    assert_eq!(advertised(""), "", "all addresses of a machine are none that others could dial");
    assert_eq!(advertised("listen: {p2p: '10.0.0.1:7100'}\n"), "10.0.0.1:7100");
    assert_eq!(advertised(&format!("listen: {{p2p: '10.0.0.1:7100'}}\n{entry}")), "a.svc:7100");
    assert_eq!(advertised(&format!("{entry}p2p: {{advertise: ['b.org:1', '[::1]:2']}}\n")), "b.org:1 [::1]:2");
}

#[test]
fn more_addresses_than_a_record_holds_or_one_twice_are_refused() {
    let refused = |list: &str| {
        let text = format!("{SMALLEST}p2p: {{advertise: [{list}]}}\n");
        NodeConfig::from_yaml(&text).expect_err("is refused").to_string()
    };
    let nine: Vec<String> = (1..=9).map(|port| format!("'a:{port}'")).collect();
    let advice = "write at most 8 addresses, each once";
    assert_eq!(refused(&nine.join(", ")), format!("p2p.advertise: 9 addresses, at most 8: {advice}"));
    assert_eq!(refused("'a:1', 'a:1'"), format!("p2p.advertise: an address is named twice: {advice}"));
}
