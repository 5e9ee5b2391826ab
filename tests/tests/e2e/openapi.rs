//! The operator's side is as its OpenAPI document says: every operation is asked for, and every answer compared with it.

use std::collections::BTreeSet;

use e2e::calls::{data, success};
use e2e::{Agent, Config, Encoding, Rest, Server, Site, eventually, files, rest};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, ORIGIN};
use serde_json::{Value, json};

const DOCUMENT: &str = "/admin/v1/openapi.json";

/// What can't be had of a server that works: its failures, what it says while it starts or stops, two backups at a time, a
/// dead letter that is damaged, and what another test waits for.
const NOT_ASKED_FOR: [&str; 7] = [
    "GET /readyz 503",
    "POST /admin/v1/backup 409",
    "DELETE /admin/v1/backup 409",
    "GET /admin/v1/receivers/{receiver}/dead-letters/{id} 409",
    "POST /admin/v1/receivers/{receiver}/seek 408",
    "PUT /admin/v1/receivers/{receiver}/component 408",
    "POST /admin/v1/reload 503",
];

/// Asks for operations, and compares the answers with the document.
struct Reader {
    rest: Rest,
    document: Value,
    /// Method, path and status of what was answered.
    answered: BTreeSet<String>,
}

impl Reader {
    async fn new(server: &Server) -> Reader {
        let rest = Rest::new(server.admin);
        let document = rest.get(DOCUMENT).await.value();
        Reader { rest, document, answered: BTreeSet::new() }
    }

    /// `path` is the one of the document; each `{…}` in it is replaced by one of `names`, and what follows `?` is a query.
    async fn ask(&mut self, method: Method, path: &str, names: &[&str], status: u16) {
        self.send(method, path, names, status, |request| request).await;
    }

    async fn order(&mut self, path: &str, names: &[&str], body: String, status: u16) {
        self.send(Method::POST, path, names, status, |request| {
            request.header(CONTENT_TYPE, "application/json").body(body)
        })
        .await;
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        names: &[&str],
        status: u16,
        add: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) {
        let (template, query) = path
            .split_once('?')
            .map_or((path, String::new()), |(template, query)| (template, format!("?{query}")));
        let mut names = names.iter();
        let segment = |segment: &str| {
            if segment.starts_with('{') { (*names.next().unwrap()).to_owned() } else { segment.to_owned() }
        };
        let concrete: Vec<_> = template.split('/').map(segment).collect();
        let answer = rest::send(add(self.rest.request(method.clone(), &(concrete.join("/") + &query)))).await;
        let what = format!("{method} {path} {status}");
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        let operation = &self.document["paths"][template][method.as_str().to_lowercase()];
        let response = self.resolved(&operation["responses"][status.to_string()]);
        let content_type = answer.header("content-type").unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default();
        let schema = &response["content"][media_type]["schema"];
        assert!(schema.is_object(), "{what} with {media_type:?} is not described");
        let value = if media_type == "application/json" { answer.value() } else { json!(answer.text()) };
        if let Err(problem) = self.check(schema, &value) {
            panic!("{what}: {problem}: {value:#}");
        }
        self.answered.insert(format!("{method} {template} {status}"));
    }

    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(to) => self.document.pointer(&to[1..]).expect("what is referred to is there"),
            None => value,
        }
    }

    /// Whether a value is as the schema says, and has nothing that the schema does not know.
    fn check(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let schema = self.resolved(schema);
        for (keyword, says) in schema.as_object().unwrap() {
            match keyword.as_str() {
                "type" => {
                    let types = says.as_array().map_or(std::slice::from_ref(says), Vec::as_slice);
                    if !types.iter().any(|of| is_of(value, of.as_str().unwrap())) {
                        return Err(format!("found {value}, expected {says}"));
                    }
                }
                "enum" if !says.as_array().unwrap().contains(value) => {
                    return Err(format!("found {value}, expected one of {says}"));
                }
                "minimum" if value.as_f64().is_some_and(|number| number < says.as_f64().unwrap()) => {
                    return Err(format!("found {value}, expected at least {says}"));
                }
                "required" if value.is_object() => {
                    let missing = says
                        .as_array()
                        .unwrap()
                        .iter()
                        .find(|name| value.get(name.as_str().unwrap()).is_none());
                    missing.map_or(Ok(()), |name| Err(format!("{name} is missing")))?;
                }
                "properties" => {
                    for (name, value) in value.as_object().into_iter().flatten() {
                        let of = says.get(name).ok_or_else(|| format!("{name} is not described"))?;
                        self.check(of, value).map_err(|problem| format!("{name}: {problem}"))?;
                    }
                }
                "items" => {
                    value.as_array().into_iter().flatten().try_for_each(|item| self.check(says, item))?
                }
                "oneOf" => {
                    let problems: Vec<_> =
                        says.as_array().unwrap().iter().map(|one| self.check(one, value)).collect();
                    if problems.iter().filter(|problem| problem.is_ok()).count() != 1 {
                        return Err(format!("none or several of {problems:?}"));
                    }
                }
                "enum" | "minimum" | "required" | "description" => {}
                keyword => panic!("this test does not know {keyword:?}"),
            }
        }
        Ok(())
    }

    /// Method, path and status of everything that is described.
    fn described(&self) -> Vec<(Method, String, String)> {
        let mut described = Vec::new();
        for (path, item) in self.document["paths"].as_object().unwrap() {
            for (method, operation) in
                item.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters")
            {
                let method: Method = method.to_uppercase().parse().unwrap();
                let statuses = operation["responses"].as_object().unwrap().keys();
                described.extend(statuses.map(|status| (method.clone(), path.clone(), status.clone())));
            }
        }
        described
    }
}

fn is_of(value: &Value, of: &str) -> bool {
    match of {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        of => panic!("{of:?} is no type"),
    }
}

#[tokio::test]
async fn every_operation_answers_as_it_is_described() {
    let config = Config::new()
        .receiver("puppet", &files::guest("puppet"), &["metrics"])
        .set("receivers.puppet.max-messages", 1)
        .set("receivers.puppet.dead-letters", 2)
        .receiver("other", &files::guest("quiet"), &["metrics"])
        .set("host.max-component", "1MiB")
        .set("presence.timeout", "1h");
    let mut site = Site::new(config);
    let server = site.start().await;
    let mut agent = Agent::connect(server.agents).await;
    let bodies = vec![json!({ "do": "reject" }); 3]
        .into_iter()
        .chain([json!({ "do": "retry", "milliseconds": 3_600_000 })]);
    for body in bodies {
        assert_eq!(agent.call(Encoding::Json, &data("a", body)).await, success());
    }
    eventually("a message that waits", async || {
        (server.receiver("puppet").await["in_flight"] == 1).then_some(())
    })
    .await;

    const RECEIVER: &str = "/admin/v1/receivers/{receiver}";
    let of = |rest: &str| format!("{RECEIVER}{rest}");
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    let mut reader = Reader::new(&server).await;
    for path in [
        "/livez",
        "/readyz",
        "/metrics",
        DOCUMENT,
        "/admin/v1/status",
        "/admin/v1/receivers",
        "/admin/v1/dead-letters",
    ] {
        reader.ask(get.clone(), path, &[], 200).await;
    }
    let order = json!({ "to": "newest", "type": null, "who": "me@here", "what": "wharf seek" }).to_string();
    for (receiver, body, status) in [
        ("puppet", order.clone(), 409),
        ("nobody", order.clone(), 404),
        ("%ff", order.clone(), 400),
        ("puppet", order.replace("newest", "nowhere"), 422),
        ("puppet", order.replace("me@here", &"x".repeat(20_000)), 413),
    ] {
        reader.order(&of("/seek"), &[receiver], body, status).await;
    }
    reader.ask(post.clone(), &of("/seek"), &["puppet"], 415).await;
    for path in ["/pause", "/resume", "/pause"] {
        for (receiver, status) in [("puppet", 200), ("nobody", 404), ("%ff", 400)] {
            reader.ask(post.clone(), &of(path), &[receiver], status).await;
        }
    }
    reader.order(&of("/seek"), &["puppet"], order, 200).await;
    for (receiver, status) in [("puppet", 200), ("nobody", 404), ("%ff", 400)] {
        reader.ask(get.clone(), RECEIVER, &[receiver], status).await;
    }

    let (letters, letter) = (of("/dead-letters"), of("/dead-letters/{id}"));
    for (query, receiver, status) in [
        ("", "puppet", 200),
        ("?from=0&limit=1", "puppet", 200),
        ("?form=1", "puppet", 400),
        ("", "nobody", 404),
    ] {
        reader.ask(get.clone(), &format!("{letters}{query}"), &[receiver], status).await;
    }
    for (method, path) in [(&get, &letter), (&delete, &letter)] {
        for (id, status) in [("3", 200), ("99", 404), ("x", 400)] {
            reader.ask(method.clone(), path, &["puppet", id], status).await;
        }
    }
    for (method, path) in [(&post, of("/dead-letters/redrive")), (&delete, letters)] {
        for (query, receiver, status) in [
            ("?ids=2", "puppet", 200),
            ("", "puppet", 422),
            ("?form=1", "puppet", 400),
            ("?all=true", "nobody", 404),
        ] {
            reader.ask(method.clone(), &format!("{path}{query}"), &[receiver], status).await;
        }
    }
    for method in [&post, &delete] {
        reader.ask(method.clone(), "/admin/v1/backup", &[], 200).await;
    }

    let (component, rollback) = (of("/component"), of("/rollback"));
    let recorder = std::fs::read(files::guest("recorder")).unwrap();
    for (query, receiver, bytes, status) in [
        ("?who=me", "puppet", b"no component".to_vec(), 422),
        ("?who=me", "nobody", recorder.clone(), 404),
        ("?who=me&what=1", "puppet", recorder.clone(), 400),
        ("?who=me", "puppet", vec![0; 2 * 1024 * 1024], 413),
        ("?who=me", "puppet", recorder.clone(), 200),
        ("?who=me", "puppet", recorder.clone(), 409),
    ] {
        let path = format!("{component}{query}");
        reader.send(Method::PUT, &path, &[receiver], status, |request| request.body(bytes)).await;
    }
    for (query, receiver, status) in [
        ("?who=me", "nobody", 404),
        ("", "puppet", 400),
        ("?who=%20", "puppet", 422),
        ("?who=me", "other", 409),
        ("?who=me", "puppet", 200),
    ] {
        reader.ask(post.clone(), &format!("{rollback}{query}"), &[receiver], status).await;
    }
    site.set("receivers.other.deadline", "4s");
    site.change(|config| config.receiver("new", &files::guest("quiet"), &["more"]).data_type("more"));
    site.write_config();
    for (query, status) in [("?who=me", 200), ("?who=", 422), ("", 400)] {
        reader.ask(post.clone(), &format!("/admin/v1/reload{query}"), &[], status).await;
    }
    reader.ask(get.clone(), "/admin/v1/swaps", &[], 200).await;
    reader.ask(get.clone(), "/admin/v1/swaps?receiver=puppet", &[], 200).await;
    reader.ask(get.clone(), "/admin/v1/swaps?form=1", &[], 400).await;

    let described = reader.described();
    for (method, path, _) in described.iter().filter(|(_, _, status)| status == "200") {
        let evil = |request: reqwest::RequestBuilder| request.header(ORIGIN, "http://evil.example");
        reader.send(method.clone(), path, &["puppet", "1"], 403, evil).await;
    }
    let wanted = described.iter().filter(|(_, _, status)| status != "500");
    let wanted = wanted.map(|(method, path, status)| format!("{method} {path} {status}"));
    let wanted: BTreeSet<_> =
        wanted.filter(|operation| !NOT_ASKED_FOR.contains(&operation.as_str())).collect();
    assert_eq!(reader.answered, wanted);
}
