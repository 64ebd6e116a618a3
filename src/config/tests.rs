//! Promises of the configuration: what is told to the operator, and where it stands.
//!
//! One `check` takes files, variables and the complaints that must come of them.

use super::*;

fn sources(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Sources {
    Sources {
        files: files.iter().map(|(name, text)| ((*name).into(), (*text).to_owned())).collect(),
        variables: variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..Sources::default()
    }
}

/// The complaints about these files and variables, one a line, are these.
fn check(files: &[(&str, &str)], variables: &[(&str, &str)], expected: &[&str]) {
    let wrongs = from_sources(&sources(files, variables)).err();
    let wrongs = wrongs.map(|refused| refused.wrongs).unwrap_or_default();
    let wrongs: Vec<String> = wrongs.iter().map(Wrong::to_string).collect();
    assert_eq!(wrongs, expected);
}

const CLOUD: &str = "[[bridge]]\nname = \"cloud\"\nurls = [\"mqtt://192.0.2.1:1883\"]\n";

#[test]
fn an_empty_file_is_a_valid_configuration() {
    check(&[("a.toml", "")], &[], &[]);
    check(&[], &[], &[]);
}

#[test]
fn five_mistakes_in_one_file_are_told_at_once_with_their_lines() {
    let text = "\
[gateway]
id = \"a/b\"

[store]
max_sise = \"1GB\"
commit_interval = \"20 parsecs\"

[[bridge]]
name = \"cloud\"
urls = [\"mqtt://192.0.2.1\", 5]
window = 0

[http]
bind = \"off\"
";
    check(
        &[("a.toml", text)],
        &[],
        &[
            "a.toml:2: gateway.id: found \"a/b\", expected 1 to 64 letters that fit into one level of a topic, without \"/\", \"+\", \"#\" and \"$\" at the start",
            "a.toml:5: store.max_sise: unknown key (did you mean \"max_size\"?)",
            "a.toml:6: store.commit_interval: found \"20 parsecs\", expected a duration such as \"500ms\", \"30s\", \"15m\", \"12h\" or \"7d\"",
            "a.toml:10: bridge[cloud].urls[1]: found 5, expected a text",
            "a.toml:11: bridge[cloud].window: found 0, expected a whole number from 1 to 1000",
            "a.toml:13: http: not in this version",
        ],
    );
}

#[test]
fn syntax_errors_hide_no_other_mistake() {
    let text = "[store]\nmax_size =\n\n[gateway]\nidd = \"x\"\n[log\nlevel = 5\n";
    let wrongs =
        from_sources(&sources(&[("a.toml", text)], &[])).expect_err("three mistakes at least").wrongs;
    let lines: Vec<usize> = wrongs
        .iter()
        .filter_map(|wrong| match &wrong.place {
            Place::Line(_, line) => Some(*line),
            _ => None,
        })
        .collect();
    assert!(lines.contains(&2) && lines.contains(&5) && lines.contains(&6), "{wrongs:?}");
}

#[test]
fn a_missing_key_is_told_where_its_table_begins() {
    let text = "# first\n\n[[bridge]]\nname = \"a\"\n\n[[bridge.forward]]\nqos = 1\n";
    check(
        &[("a.toml", text)],
        &[],
        &[
            "a.toml:3: bridge[a].urls: missing, expected a list of texts",
            "a.toml:6: bridge[a].forward[0].filter: missing, expected a text",
        ],
    );
}

#[test]
fn lists_of_several_files_are_joined_and_later_keys_win() {
    let first = format!("[gateway]\nid = \"one\"\n{CLOUD}");
    let second =
        "[gateway]\nid = \"two\"\n[[bridge]]\nname = \"backup\"\nurls = [\"mqtt://192.0.2.2:1883\"]\n";
    let loaded =
        from_sources(&sources(&[("a.toml", &first), ("conf.d/b.toml", second)], &[])).expect("valid");
    assert_eq!(loaded.gateway.id, "two");
    assert_eq!(loaded.bridges.len(), 2);
}

#[test]
fn a_mistake_in_a_joined_list_is_told_in_its_own_file() {
    let second = "\n[[bridge]]\nname = \"backup\"\nurls = [\"mqtt://192.0.2.2:1883\"]\nwindow = 5000\n";
    check(
        &[("a.toml", CLOUD), ("b.toml", second)],
        &[],
        &["b.toml:5: bridge[backup].window: found 5000, expected a whole number from 1 to 1000"],
    );
}

#[test]
fn two_entries_of_one_name_name_both_places() {
    check(
        &[("a.toml", CLOUD), ("b.toml", &format!("\n{CLOUD}"))],
        &[],
        &["b.toml:3: bridge[cloud].name: the name \"cloud\" is taken: a.toml:2 has it already"],
    );
}

#[test]
fn the_environment_sets_keys_of_sections_and_of_named_entries() {
    let text = "[[bridge]]\nname = \"far-cloud\"\nurls = [\"mqtt://192.0.2.1:1883\"]\n";
    let variables = [
        ("TIDEGATE_GATEWAY__ID", "0123"),
        ("TIDEGATE_GATEWAY__DATA_DIR", "/data"),
        ("TIDEGATE_BRIDGE__FAR_CLOUD__USERNAME", "0123"),
        ("TIDEGATE_BRIDGE__FAR_CLOUD__WINDOW", "7"),
        ("TIDEGATE_MQTT_SN__BIND", "127.0.0.1:10000"),
    ];
    let loaded = from_sources(&sources(&[("a.toml", text)], &variables)).expect("valid");
    assert_eq!(loaded.gateway.id, "0123");
    assert_eq!(loaded.gateway.data_dir, Path::new("/data"));
    assert!(loaded.mqtt_sn.is_some());
    let bridge = loaded.bridges.first().expect("one bridge");
    assert_eq!(bridge.username.as_deref(), Some("0123"));
    assert_eq!(bridge.window, 7);
}

#[test]
fn wrong_variables_are_told_by_their_names() {
    check(
        &[("a.toml", CLOUD)],
        &[
            ("TIDEGATE_BRIDGE__CLOUD__WINDOW", "many"),
            ("TIDEGATE_BRIDGE__MOON__WINDOW", "5"),
            ("TIDEGATE_HTTP__BIND", "off"),
            ("TIDEGATE_STORE__MAX_SISE", "1GB"),
            ("TIDEGATE_STROE__MAX_SIZE", "1GB"),
        ],
        &[
            "environment TIDEGATE_BRIDGE__CLOUD__WINDOW: bridge[cloud].window: found \"many\", expected a whole number from 1 to 1000",
            "environment TIDEGATE_BRIDGE__MOON__WINDOW: no key of a [[bridge]] has this name; the entries are: cloud",
            "environment TIDEGATE_HTTP__BIND: not in this version",
            "environment TIDEGATE_STORE__MAX_SISE: unknown key of [store] (did you mean \"MAX_SIZE\"?)",
            "environment TIDEGATE_STROE__MAX_SIZE: unknown section (did you mean \"STORE\"?)",
        ],
    );
}

#[test]
fn a_variable_that_could_mean_two_entries_is_refused() {
    let text = CLOUD.replace("cloud", "a-b") + &CLOUD.replace("cloud", "a_b").replace("1883", "1884");
    check(
        &[("a.toml", &text)],
        &[("TIDEGATE_BRIDGE__A_B__WINDOW", "5")],
        &[
            "environment TIDEGATE_BRIDGE__A_B__WINDOW: could mean bridge[a-b].window or bridge[a_b].window, so it is refused",
        ],
    );
}

#[test]
fn a_variable_without_a_section_is_only_warned_of() {
    let loaded = from_sources(&sources(&[], &[("TIDEGATE_PORT", "tcp://192.0.2.1:1883")])).expect("valid");
    assert!(loaded.warnings.iter().any(|warning| warning.contains("TIDEGATE_PORT")));
    assert!(!loaded.warnings.iter().any(|warning| warning.contains("192.0.2.1")));
    for (variable, meant) in [
        ("TIDEGATE_STORE_MAX_SIZE", "(did you mean TIDEGATE_STORE__MAX_SIZE?)"),
        ("TIDEGATE_MQTT_SN_BIND", "(did you mean TIDEGATE_MQTT_SN__BIND?)"),
        ("TIDEGATE_BRIDGE_CLOUD_WINDOW", "(did you mean TIDEGATE_BRIDGE__NAME__KEY?)"),
        ("TIDEGATE_SEED", "sets nothing"),
    ] {
        let loaded = from_sources(&sources(&[], &[(variable, "1")])).expect("valid");
        let warned = |warning: &String| warning.contains(variable) && warning.ends_with(meant);
        assert!(loaded.warnings.iter().any(warned), "{variable}: {:?}", loaded.warnings);
    }
}

#[test]
fn a_room_is_asked_although_another_of_its_keys_is_wrong() {
    check(
        &[("a.toml", "[gateway]\nid = \"a/b\"\ndata_dir = \"\"\nrun = 5\n")],
        &[],
        &[
            "a.toml:2: gateway.id: found \"a/b\", expected 1 to 64 letters that fit into one level of a topic, without \"/\", \"+\", \"#\" and \"$\" at the start",
            "a.toml:3: gateway.data_dir: found no path, expected a folder",
            "a.toml:4: gateway.run: unknown key",
        ],
    );
}

#[test]
fn two_listeners_on_one_address_name_both_places() {
    let text =
        "[[listener]]\nbind = \"0.0.0.0:1883\"\n[[listener]]\nname = \"b\"\nbind = \"127.0.0.1:1883\"\n";
    check(
        &[("a.toml", text)],
        &[],
        &["a.toml:5: listener[b].bind: 127.0.0.1:1883 is taken: a.toml:2 claims it already"],
    );
}

#[test]
fn two_lines_on_one_serial_device_name_both_places() {
    let text = "[[modbus]]\nname = \"a\"\nserial = { device = \"/dev/x\" }\n[[modbus.device]]\nname = \"m\"\nunit = 1\n[[modbus.device.point]]\nname = \"p\"\nregister = \"coil:1\"\n[[serial]]\nname = \"b\"\ndevice = \"/dev/x\"\n";
    check(
        &[("a.toml", text)],
        &[],
        &["a.toml:12: serial[b].device: /dev/x is taken: a.toml:3 claims it already"],
    );
}

/// Some warning about this text holds this word.
fn check_warning(text: &str, expected: &str) {
    let loaded = from_sources(&sources(&[("a.toml", text)], &[])).expect("valid");
    assert!(loaded.warnings.iter().any(|warning| warning.contains(expected)), "{:?}", loaded.warnings);
}

#[test]
fn what_is_perhaps_not_meant_is_warned_of() {
    check_warning("[[listener]]\nbind = \"0.0.0.0:1883\"\nallow_anonymous = true\n", "anybody");
    check_warning("[[listener]]\nbind = \"0.0.0.0:1883\"\n", "nobody can come in");
    check_warning("[auth]\npassword_file = \"/nonexistent/passwd\"\n", "/nonexistent/passwd");
    check_warning(CLOUD, "carries nothing");
    check_warning(&format!("{CLOUD}[[bridge.forward]]\nfilter = \"#\"\nqos = 0\n"), "qos = 0");
}

#[test]
fn an_empty_configuration_opens_one_local_door() {
    let loaded = from_sources(&Sources::default()).expect("valid");
    let doors: Vec<String> = loaded.listeners.iter().map(|listener| listener.bind.to_string()).collect();
    assert_eq!(doors, ["127.0.0.1:1883"]);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn a_file_that_was_asked_for_must_be_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("none.toml");
    let wrongs = load(Some(&path)).expect_err("it is not there").wrongs;
    assert!(wrongs.iter().any(|wrong| wrong.to_string().contains("none.toml: cannot read the file")));
}

#[test]
fn the_folder_beside_the_file_is_read_in_name_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    std::fs::create_dir(folder.path().join("conf.d")).expect("a folder");
    write("tidegate.toml", "[gateway]\nid = \"one\"\n");
    write("conf.d/20.toml", "[gateway]\nid = \"three\"\n");
    write("conf.d/10.toml", "[gateway]\nid = \"two\"\n");
    write("conf.d/30.toml.bak", "nonsense");
    let loaded = load(Some(&folder.path().join("tidegate.toml"))).expect("valid");
    assert_eq!(loaded.gateway.id, "three");
}

#[test]
fn a_key_that_is_given_twice_names_both_places_and_hides_nothing() {
    let text = "\
[store]
max_size = \"1GB\"
\"max_size\" = \"2GB\"

[gateway]
id = \"a/b\"

[store]
min_free_disk = \"x\"

[[bridge]]
name = \"cloud\"
urls = [\"mqtt://192.0.2.1\"]
window = 5
tls = { ca = \"a\", ca = \"b\" }
window = 6
";
    let twice = |line: usize, key: &str, first: usize| {
        format!("a.toml:{line}: {key}: found a second time, expected once: a.toml:{first} has it already")
    };
    let wrongs =
        from_sources(&sources(&[("b.toml", &CLOUD.replace("cloud", "first")), ("a.toml", text)], &[]));
    let wrongs: Vec<String> = wrongs.expect_err("wrong").wrongs.iter().map(Wrong::to_string).collect();
    for expected in [
        twice(3, "store.max_size", 2),
        twice(8, "store", 1),
        twice(15, "bridge[cloud].tls.ca", 15),
        twice(16, "bridge[cloud].window", 14),
    ] {
        assert!(wrongs.contains(&expected), "{expected} is not among {wrongs:#?}");
    }
    for expected in ["a.toml:6: gateway.id: found", "a.toml:9: store.min_free_disk: found"] {
        assert!(wrongs.iter().any(|wrong| wrong.starts_with(expected)), "{expected}: {wrongs:#?}");
    }
}

#[test]
fn files_that_cannot_be_used_are_told_beside_every_other_mistake() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.toml");
    let text = "\
[limits]
max_connections = \"x\"
[auth]
acl_file = \"/nowhere/acl\"
password_file = \"/nowhere/passwd\"
[[listener]]
bind = \"here\"
tls = { cert = \"/nowhere/c.pem\", key = \"/nowhere/c.key\" }
[[listener]]
bind = \"127.0.0.1:18831\"
tls = { cert = \"/nowhere/d.pem\" }
[[bridge]]
name = \"a/b\"
urls = [\"mqtts://192.0.2.1\"]
password_file = \"/nowhere/password\"
tls = { ca = \"/nowhere/ca.pem\", cert = \"/nowhere/a.crt\" }
";
    std::fs::write(&path, text).expect("written");
    let refused = load(Some(&path)).expect_err("wrong");
    let told = refused.to_string();
    for (line, key, file) in [
        (4, "auth.acl_file", "acl"),
        (8, "listener[0].tls.cert", "c.pem"),
        (8, "listener[0].tls.key", "c.key"),
        (11, "listener[1].tls.cert", "d.pem"),
        (15, "bridge[a/b].password_file", "password"),
        (16, "bridge[a/b].tls.ca", "ca.pem"),
        (16, "bridge[a/b].tls.cert", "a.crt"),
    ] {
        let start = format!("{}:{line}: {key}: ", path.display());
        let file = format!("/nowhere/{file}");
        assert!(
            told.lines().any(|told| told.starts_with(&start) && told.contains(&file)),
            "{start}{file}: {told}"
        );
    }
    let warning = format!("warning: {}:5: auth.password_file: cannot ", path.display());
    assert!(told.lines().any(|told| told.starts_with(&warning)), "{told}");
}

#[test]
fn the_rules_file_is_named_where_it_stands_and_is_never_an_empty_path() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.toml");
    let told = |value: &str| {
        std::fs::write(&path, format!("[auth]\nacl_file = \"{value}\"\n")).expect("written");
        load(Some(&path)).expect_err("wrong").wrongs.iter().map(Wrong::to_string).collect::<Vec<_>>()
    };
    let at = format!("{}:2: auth.acl_file: ", path.display());
    assert_eq!(told(""), [format!("{at}found \"\", expected the path of a file")]);
    for file in ["/nowhere/acl", "/etc"] {
        let told = told(file);
        assert!(
            matches!(told.as_slice(), [one] if one.starts_with(&format!("{at}{file}: cannot read the file"))),
            "{told:?}"
        );
    }
}

#[test]
fn a_file_in_the_place_of_a_folder_is_told_with_its_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, "").expect("written");
        path.display().to_string()
    };
    let (data, run) = (file("data"), file("run"));
    let told = |text: &str| {
        let loaded = from_sources(&sources(&[("a.toml", text)], &[])).expect("it runs all the same");
        loaded.unready.iter().map(Wrong::to_string).collect::<Vec<_>>()
    };
    let cure = |file: &str| format!("expected a folder: {file} is a file; name another, or move it away");
    let at_data = format!("a.toml:2: gateway.data_dir: found {data}, {}", cure(&data));
    let text = format!("[gateway]\ndata_dir = \"{data}\"\n");
    assert_eq!(told(&text), std::slice::from_ref(&at_data), "the run_dir below it is not told too");
    let text = format!("{text}run_dir = \"{run}/tidegate\"\n");
    let at_run = format!("a.toml:3: gateway.run_dir: found {run}/tidegate, {}", cure(&run));
    assert_eq!(told(&text), [at_data.clone(), at_run]);
    let text = format!("[gateway]\ndata_dir = \"{data}\"\nid = \"a/b\"\n");
    let refused = from_sources(&sources(&[("a.toml", &text)], &[])).expect_err("no id").to_string();
    assert!(refused.contains(&at_data) && refused.contains("gateway.id: found"), "{refused}");
}

#[test]
fn a_folder_whose_control_socket_no_kernel_would_take_is_told_and_all_else_runs() {
    let told = |length: usize| {
        let text = format!("[gateway]\nrun_dir = \"/{}\"\n", "a".repeat(length - 1));
        let loaded = from_sources(&sources(&[("a.toml", &text)], &[])).expect("it runs all the same");
        loaded.unready.iter().map(Wrong::to_string).collect::<Vec<_>>()
    };
    let longest = 107 - "/control.sock.new".len();
    assert_eq!(told(longest), [""; 0]);
    let told = told(longest + 1);
    assert!(
        told[0].starts_with("a.toml:2: gateway.run_dir: found /aaa") && told[0].contains("107"),
        "{told:?}"
    );
}

#[test]
fn what_would_do_nothing_is_refused_with_its_cure() {
    let text = format!(
        "{CLOUD}protocol = 4\nsession_expiry = \"1d\"\n[[listener]]\nbind = \"127.0.0.1:1\"\nallowed_origins = [\"https://a.example\"]\n"
    );
    check(
        &[("a.toml", &text)],
        &[],
        &[
            "a.toml:5: bridge[cloud].session_expiry: found \"1d\", expected none with protocol = 4: MQTT 3.1.1 has no word for it, and upstream keeps the session as long as it likes: remove it, or set protocol = 5",
            "a.toml:8: listener[0].allowed_origins: found origins at a listener for MQTT alone, where no browser comes; expected them with protocol = \"ws\": set it, or remove them",
        ],
    );
}

#[test]
fn a_key_that_is_not_built_is_told_alone_where_it_stands_for_another() {
    let format = "[[modbus]]\nname = \"m\"\ntcp = \"192.0.2.1:502\"\nformat = \"value\"\n[[modbus.device]]\nname = \"d\"\nunit = 1\n[[modbus.device.point]]\nname = \"p\"\nregister = \"coil:1\"\nformat = \"value\"\n";
    let text = format!(
        "[[serial]]\nname = \"s\"\ntcp = \"192.0.2.9:4001\"\n[[modbus]]\nname = \"t\"\ntcp_listen = \"127.0.0.1:1\"\n{format}"
    );
    check(
        &[("a.toml", &text)],
        &[],
        &[
            "a.toml:3: serial[s].tcp: not in this version",
            "a.toml:6: modbus[t].tcp_listen: not in this version",
            "a.toml:10: modbus[m].format: not in this version",
            "a.toml:17: modbus[m].device[d].point[p].format: not in this version",
        ],
    );
}

#[test]
fn every_bad_element_of_a_list_is_told_at_its_own_line() {
    let text = "[[listener]]\nbind = \"127.0.0.1:1\"\nprotocol = \"ws\"\nallowed_origins = [\n  \"panel\",\n  \"https://a.example\",\n  \"*\",\n]\n";
    let expected =
        "expected what a browser sends, such as \"https://panel.example.com\", without a path or *";
    check(
        &[("a.toml", text)],
        &[],
        &[
            &format!("a.toml:5: listener[0].allowed_origins[0]: found \"panel\", {expected}"),
            &format!("a.toml:7: listener[0].allowed_origins[2]: found \"*\", {expected}"),
        ],
    );
}

#[test]
fn of_two_settings_that_contradict_each_other_the_given_one_is_blamed() {
    check(
        &[("a.toml", "[store]\ncommit_interval = \"2s\"\n")],
        &[],
        &[
            "a.toml:2: store.commit_interval: found \"2s\", expected at most commit_interval_max, which is \"1s\": make this shorter, or that longer",
        ],
    );
    check(
        &[("a.toml", "[store]\ncommit_interval_max = \"1ms\"\n")],
        &[],
        &[
            "a.toml:2: store.commit_interval_max: found \"1ms\", expected at least commit_interval, which is \"20ms\"",
        ],
    );
}

#[test]
fn a_contradiction_with_a_variable_names_the_variable() {
    let text = CLOUD.replace("mqtt://192.0.2.1:1883", "mqtts://192.0.2.1")
        + "tls = { server_name = \"x.example\" }\n";
    check(
        &[("a.toml", &text)],
        &[("TIDEGATE_BRIDGE__CLOUD__URLS", "mqtt://192.0.2.2")],
        &[
            "a.toml:4: bridge[cloud].tls: found TLS with urls = [\"mqtt://192.0.2.2:1883\"], expected one that begins with mqtts:// (urls is set by environment TIDEGATE_BRIDGE__CLOUD__URLS)",
        ],
    );
    check(
        &[("a.toml", CLOUD)],
        &[("TIDEGATE_BRIDGE__CLOUD__TLS__SERVER_NAME", "x.example")],
        &[
            "environment TIDEGATE_BRIDGE__CLOUD__TLS__SERVER_NAME: bridge[cloud].tls: found TLS with urls = [\"mqtt://192.0.2.1:1883\"], expected one that begins with mqtts://",
        ],
    );
    check(
        &[("a.toml", CLOUD)],
        &[("TIDEGATE_BRIDGE__CLOUD__URLS", "http://x")],
        &[
            "environment TIDEGATE_BRIDGE__CLOUD__URLS: bridge[cloud].urls[0]: found \"http://x\", expected mqtts://host:port or mqtt://host:port",
        ],
    );
}

#[test]
fn no_text_makes_the_examination_panic() {
    for text in [
        "",
        "=",
        "[",
        "[[bridge]]\n[bridge.x",
        "a.b.c = 1\n[a]",
        "bridge = 5",
        "[[store]]",
        "\u{feff}x",
        "listener = [[1]]",
        "store = {max_size = {}}",
        "gateway.id.x = 1",
        "[mqtt_sn]\npredefined = 5",
    ] {
        examine(text);
    }
    let deep = "[".repeat(100_000);
    assert!(!examine(&format!("x = {deep}")).is_empty());
    assert!(!examine(&format!("x = {}1", "{a=".repeat(50_000))).is_empty());
    assert!(!examine(&"a.".repeat(50_000)).is_empty());
}

#[test]
fn every_wrong_line_of_the_acl_file_is_named_beside_the_other_mistakes() {
    let folder = tempfile::tempdir().expect("a folder");
    let acl = folder.path().join("acl");
    let path = folder.path().join("tidegate.toml");
    std::fs::write(&acl, "topic read a/#\ntopic raed b\nuser\n").expect("written");
    std::fs::write(&path, format!("[auth]\nacl_file = {acl:?}\n[limits]\nmax_inflight = 0\n"))
        .expect("written");
    let wrongs: Vec<String> =
        load(Some(&path)).expect_err("wrong").wrongs.iter().map(Wrong::to_string).collect();
    assert_eq!(wrongs.len(), 3, "{wrongs:#?}");
    assert!(wrongs.iter().any(|wrong| wrong.starts_with(&format!("{}:2: found \"raed\"", acl.display()))));
    assert!(wrongs.iter().any(|wrong| wrong.contains(":3: names no user: write user NAME")), "{wrongs:#?}");

    std::fs::write(&acl, "topic read a/#\n").expect("written");
    std::fs::write(&path, format!("[auth]\nacl_file = {acl:?}\n")).expect("written");
    let loaded = load(Some(&path)).expect("right");
    // Whoever runs this may have variables that set nothing.
    let others: Vec<_> =
        loaded.warnings.iter().filter(|warning| !warning.starts_with("environment ")).collect();
    assert!(loaded.rules.is_some() && others.is_empty(), "{others:?}");
    std::fs::write(&acl, "topic read a/#\nuser anna\ntopic b\n").expect("written");
    let loaded = load(Some(&path)).expect("right");
    assert!(loaded.warnings.iter().any(|warning| warning.contains("nobody checks")), "{:?}", loaded.warnings);
    std::fs::remove_file(&acl).expect("removed");
    let wrongs = load(Some(&path)).expect_err("a rule that is not there may have denied something").wrongs;
    assert!(wrongs[0].to_string().contains("cannot read the file"), "{wrongs:?}");
}

#[test]
fn sensors_do_not_take_the_houses_names() {
    for user in ["tidegate", "tidegate:x", "bridge:cloud", "modbus:line-1"] {
        let text = format!("[mqtt_sn]\nbind = \"127.0.0.1:10000\"\ngateway_id = 1\nuser = {user:?}\n");
        let wrongs = from_sources(&sources(&[("a.toml", &text)], &[])).expect_err("refused").wrongs;
        assert!(wrongs[0].to_string().contains("a name of tidegate's own"), "{wrongs:?}");
    }
}

#[test]
fn two_bridges_that_would_take_each_others_place_upstream_are_refused() {
    let other = CLOUD.replace("cloud", "backup");
    check(
        &[("a.toml", &format!("{CLOUD}{other}"))],
        &[],
        &[
            "a.toml:4: bridge[backup].client_id: \"tidegate\" at mqtt://192.0.2.1:1883 is taken: a.toml:1 claims it already, and upstream keeps only one of two clients with one id: give each bridge its own client_id, such as \"{gateway}-backup\"",
        ],
    );
    let own = format!("{CLOUD}{other}client_id = \"{{gateway}}-backup\"\n");
    check(&[("a.toml", &own)], &[], &[]);
    let elsewhere = format!("{CLOUD}{}", other.replace("1883", "1884"));
    check(&[("a.toml", &elsewhere)], &[], &[]);
}

#[test]
fn files_of_a_bridge_that_cannot_be_used_are_told_and_keep_nothing_from_starting() {
    let text = "\
[[bridge]]
name = \"cloud\"
urls = [\"mqtts://192.0.2.1\"]
username = \"barn\"
password_file = \"/nowhere/password\"
tls = { ca = \"/nowhere/ca.pem\", cert = \"/nowhere/a.crt\", key = \"/nowhere/a.key\" }
[[bridge.forward]]
filter = \"sensors/#\"
";
    let loaded = from_sources(&sources(&[("a.toml", text)], &[])).expect("valid");
    let told: Vec<String> = loaded.unready.iter().map(Wrong::to_string).collect();
    let missing = "No such file or directory (os error 2)";
    let expected = [("ca", "ca.pem"), ("cert", "a.crt"), ("key", "a.key")].map(|(key, file)| {
        format!("a.toml:6: bridge[cloud].tls.{key}: cannot use /nowhere/{file}: I/O error: {missing}")
    });
    assert_eq!(told.get(..3), Some(&expected[..]), "{told:#?}");
    let password = format!("a.toml:5: bridge[cloud].password_file: cannot use /nowhere/password: {missing}");
    assert_eq!(told.get(3..), Some(&[password][..]));
}

#[test]
fn a_password_that_would_cross_the_network_unencrypted_is_warned_of() {
    let warned = |host: &str| {
        let text = format!(
            "[[bridge]]\nname = \"cloud\"\nurls = [\"{host}\"]\nusername = \"barn\"\npassword_file = \"/etc/hostname\"\n[[bridge.forward]]\nfilter = \"sensors/#\"\n"
        );
        let loaded = from_sources(&sources(&[("a.toml", &text)], &[])).expect("valid");
        loaded.warnings
    };
    let expected = "a.toml:5: bridge[cloud].password_file: the password crosses the network unencrypted to broker.example: an mqtts:// URL would hide it";
    assert_eq!(warned("mqtt://broker.example"), [expected]);
    for host in ["mqtt://127.0.0.1", "mqtt://[::1]:1884", "mqtt://localhost", "mqtts://broker.example"] {
        assert_eq!(warned(host), [""; 0], "{host}");
    }
}

#[test]
fn a_command_for_a_device_that_no_line_allows_is_warned_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let (acl, path) = (folder.path().join("acl"), folder.path().join("tidegate.toml"));
    let told = |rules: Option<&str>, to: &str| {
        let auth = rules.map(|rules| {
            std::fs::write(&acl, rules).expect("written");
            format!("[auth]\nacl_file = {acl:?}\n")
        });
        let text = format!(
            "{}[[serial]]\nname = \"scale\"\ndevice = \"/dev/null\"\ntopic = \"scales/1\"\n[[bridge]]\nname = \"cloud\"\nurls = [\"mqtt://192.0.2.1\"]\n[[bridge.receive]]\nfilter = \"c/+\"\nto = \"{to}\"\n",
            auth.unwrap_or_default()
        );
        std::fs::write(&path, text).expect("written");
        let loaded = load(Some(&path)).expect("right");
        loaded.warnings.into_iter().filter(|warning| warning.contains("denied")).collect::<Vec<_>>()
    };
    let expected = "what comes as scales/1/set is denied: a device is written only by who has a line for its set topic in [auth] acl_file, here \"user bridge:cloud\" and \"topic write scales/1/set\"";
    let (broad, other) =
        ("user bridge:cloud\ntopic write #\n", "user bridge:lan\ntopic write scales/1/set\n");
    for (rules, to) in [
        (None, "scales/1/set"),
        (None, "scales/1/{1}"),
        (None, "scales/{1}/set"),
        (Some(broad), "scales/1/set"),
        (Some(other), "scales/1/set"),
    ] {
        let warnings = told(rules, to);
        assert!(warnings.len() == 1 && warnings[0].contains(expected), "{rules:?} {to}: {warnings:?}");
    }
    let named = "user bridge:cloud\ntopic write scales/1/set\n";
    for (rules, to) in [(None, "scales/2/set"), (None, "commands/{1}"), (Some(named), "scales/1/set")] {
        let warnings = told(rules, to);
        assert!(warnings.is_empty(), "{rules:?} {to}: {warnings:?}");
    }
}
