//! Commands, and the conditions of commands and limits.

use super::*;

fn command(matches: Value) -> Value {
    json!({"version": 1, "commands": [{"command": "a", "match": matches}]})
}

fn limited(matches: Value) -> Value {
    json!({
        "version": 1,
        "commands": [{"command": "account.get", "match": {"path": {"prefix": "/account/"}}}],
        "rate_limits": {"x": limit(json!({"match": matches}))},
    })
}

#[test]
fn commands_keep_their_order_and_may_share_a_name() {
    let policy = loaded(&json!({"version": 1, "commands": [
        {"command": "account.core.get_account", "match": {"grpc": "account.core.AccountService/GetAccount"}},
        {"command": "voucher", "match": {"path": {"prefix": "/voucher/"}, "methods": ["GET", "POST"]}},
        {"command": "account.core.get_account", "match": {"path": {"exact": "/account"}}},
    ]}));
    let names: Vec<&str> = policy.commands.iter().map(|command| command.name.as_str()).collect();
    assert_eq!(names, ["account.core.get_account", "voucher", "account.core.get_account"]);
    let grpc = &policy.commands[0].matches;
    assert!(
        matches!(&grpc.path, Some(StringMatch::Exact(path)) if path == "/account.core.AccountService/GetAccount")
    );
    assert_eq!(grpc.methods, ["POST"]);
    assert_eq!(policy.commands[1].matches.methods, ["GET", "POST"]);
}

#[test]
fn a_limit_says_which_requests_and_which_of_them_not() {
    let policy = loaded(&json!({
        "version": 1,
        "commands": [{"command": "v", "match": {"path": {"suffix": "/v"}}}],
        "rate_limits": {"x": limit(json!({
            "match": {
                "command": ["v"],
                "methods": ["GET"],
                "path": {"regex": "/v[0-9]+|/w"},
                "headers": [{"name": "x-type", "exact": "ads"}, {"name": "x-internal", "present": false}],
            },
            "except": {"headers": [{"name": "x-caller", "prefix": "batch-"}]},
        }))},
    }));
    let limit = &policy.lanes[0].limits[0];
    assert_eq!(
        (&limit.matches.commands, &limit.matches.methods),
        (&vec!["v".to_owned()], &vec!["GET".to_owned()])
    );
    let Some(StringMatch::Regex(regex)) = &limit.matches.path else { panic!("{:?}", limit.matches.path) };
    for (path, matches) in [("/v1", true), ("/w", true), ("/v1/x", false), ("/x/w", false), ("/w\n", false)] {
        assert_eq!(regex.is_match(path), matches, "{path:?}");
    }
    assert!(
        matches!(limit.matches.headers[0].value, HeaderTest::Value(StringMatch::Exact(ref v)) if v == "ads")
    );
    assert!(matches!(limit.matches.headers[1].value, HeaderTest::Present(false)));
    let except = limit.except.as_ref().unwrap();
    assert!(
        matches!(except.headers[0].value, HeaderTest::Value(StringMatch::Prefix(ref v)) if v == "batch-")
    );
}

#[test]
fn a_command_that_nothing_maps_to_is_refused_with_the_known_ones() {
    check(
        limited(json!({"command": ["acount.get"]})),
        &[
            "rate_limits.x.match.command[0]: \"acount.get\": is not a known command; `commands` names account.get; \
           did you mean `account.get`?",
        ],
    );
    check(
        json!({"version": 1, "rate_limits": {"x": limit(json!({"except": {"command": ["a"]}}))}}),
        &["rate_limits.x.except.command[0]: \"a\": is not a known command: `commands` names none"],
    );
    check(
        limited(json!({"command": "account.get"})),
        &["rate_limits.x.match.command: \"account.get\": must be a list"],
    );
    check(
        limited(json!({"command": ["account.get", "account.get"]})),
        &["rate_limits.x.match.command[1]: \"account.get\": stands in this list twice"],
    );
}

#[test]
fn commands_need_a_name_and_a_match() {
    check(
        json!({"version": 1, "commands": [{}, {"command": "/users", "match": {"path": {"exact": "/"}}}, "a"]}),
        &[
            "commands[0].command: is required: the name",
            "commands[0].match: is required: the requests it names",
            "commands[1].command: \"/users\": must be 1 to 64 letters, digits, _, - or dots, and begin with a letter \
             or digit",
            "commands[2]: \"a\": must be an object with the fields command, match",
        ],
    );
    check(
        command(json!({})),
        &["commands[0].match: {}: must not be empty: say which requests, or leave it out"],
    );
    check(
        command(json!({"command": ["a"]})),
        &["commands[0].match.command: [\"a\"]: is an unknown field; allowed: grpc, path, methods, headers"],
    );
}

#[test]
fn grpc_stands_for_path_and_method() {
    for wrong in ["", "Service", "a.B/", "/a.B/C", "a.B/C/D", "a..B/C", "a.1B/C", "a.B/C-D"] {
        let problem = if wrong.is_empty() { "must not be empty" } else { "must be package.Service/Method" };
        check(command(json!({"grpc": wrong})), &[&format!("commands[0].match.grpc: \"{wrong}\": {problem}")]);
    }
    check(command(json!({"grpc": "Service/Method"})), &[]);
    check(
        command(json!({"grpc": "a.B/C", "path": {"exact": "/"}, "methods": ["GET"]})),
        &[
            "commands[0].match.path: {\"exact\":\"/\"}: must be left out: `grpc` says the path and the method",
            "commands[0].match.methods: [\"GET\"]: must be left out: `grpc` says the path and the method",
        ],
    );
    check(
        limited(json!({"grpc": "a.B/C"})),
        &[
            "rate_limits.x.match.grpc: \"a.B/C\": is an unknown field; allowed: command, methods, path, headers",
        ],
    );
}

#[test]
fn paths_are_paths_without_queries() {
    let one = |test: Value| command(json!({"path": test}));
    let at = "commands[0].match.path";
    check(
        one(json!({"exact": "users"})),
        &[&format!("{at}.exact: \"users\": must begin with /, as every path does")],
    );
    check(
        one(json!({"prefix": "v1/"})),
        &[&format!("{at}.prefix: \"v1/\": must begin with /, as every path does")],
    );
    check(
        one(json!({"suffix": "/a?b=c"})),
        &[&format!("{at}.suffix: \"/a?b=c\": must not hold ? or #: the path ends before its query")],
    );
    let exactly = "must have exactly one of exact, prefix, suffix, regex";
    check(
        one(json!({"exact": "/a", "prefix": "/a"})),
        &[&format!("{at}: {{\"exact\":\"/a\",\"prefix\":\"/a\"}}: {exactly}")],
    );
    check(one(json!({})), &[&format!("{at}: {{}}: {exactly}")]);
    check(
        one(json!("/a")),
        &[&format!("{at}: \"/a\": must be an object with the fields exact, prefix, suffix, regex")],
    );
}

#[test]
fn path_templates_are_refused_for_now() {
    check(
        command(json!({"path": {"template": "/users/{id}"}})),
        &[
            "commands[0].match.path.template: \"/users/{id}\": is not supported by this version; supported: exact, \
             prefix, suffix, regex",
        ],
    );
}

#[test]
fn expressions_must_compile_alone_and_stay_small() {
    let one = |regex: &str| command(json!({"path": {"regex": regex}}));
    let error = |regex: &str| errors(&one(regex)).join("\n");
    assert!(error("[").starts_with("commands[0].match.path.regex: \"[\": must be a regular expression: "));
    assert!(error("(?=a)").contains("must be a regular expression: "));
    assert!(error("a)|(b").contains("must be a regular expression: "), "would compile between the anchors");
    assert!(error("(?:a{1000}){1000}").contains("must be a regular expression: "), "would take megabytes");
    check(one("/users/[0-9]+(/.*)?"), &[]);
}

#[test]
fn methods_are_upper_case() {
    let one = |method: Value| command(json!({"methods": [method]}));
    check(
        one(json!("get")),
        &[
            "commands[0].match.methods[0]: \"get\": must be an upper-case method such as GET or POST; did you mean `GET`?",
        ],
    );
    check(one(json!("M-SEARCH")), &[]);
    check(
        command(json!({"methods": []})),
        &["commands[0].match.methods: []: must not be empty: write an item, or leave it out"],
    );
}

#[test]
fn headers_have_a_name_and_one_test() {
    let one = |header: Value| limited(json!({"headers": [header]}));
    let at = "rate_limits.x.match.headers[0]";
    let exactly = "must have exactly one of exact, prefix, suffix, regex, present";
    check(one(json!({"exact": "a"})), &[&format!("{at}.name: is required: the header's name")]);
    check(one(json!({"name": "x-a"})), &[&format!("{at}: {{\"name\":\"x-a\"}}: {exactly}")]);
    check(
        one(json!({"name": "X-A", "present": "yes"})),
        &[
            &format!("{at}.name: \"X-A\": must be lower-case: `x-a`"),
            &format!("{at}.present: \"yes\": must be true or false"),
        ],
    );
    check(
        one(json!({"name": ":method", "exact": "GET"})),
        &[&format!(
            "{at}.name: \":method\": must not be a pseudo header: `methods` and `method` stand for the method"
        )],
    );
    check(
        one(json!({"name": "x-a", "equals": "b"})),
        &[&format!(
            "{at}.equals: \"b\": is an unknown field; allowed: name, exact, prefix, suffix, regex, present"
        )],
    );
}
