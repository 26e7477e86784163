//! Every vector file of version 1, as text.

mod attacks;
mod cbor;
pub(crate) mod craft;
mod documents;
mod entries;
mod link;
mod request;
mod response;
pub(crate) mod rng;

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value, json};

/// File names with their contents.
pub(crate) fn files() -> Vec<(&'static str, String)> {
    vec![
        ("attacks_v1.json", attacks::file()),
        ("documents_v1.json", documents::file()),
        ("entries_v1.json", entries::file()),
        ("link_v1.json", link::file()),
        ("request_v1.json", request::file()),
        ("response_v1.json", response::file()),
    ]
}

/// One vector file in the making: a head, then one test a line.
struct Suite {
    spec: String,
    schema: String,
    shared: Map<String, Value>,
    names: HashSet<String>,
    tests: Vec<String>,
}

impl Suite {
    fn new(spec: &str, schema: &str) -> Self {
        Self { spec: spec.into(), schema: schema.into(), shared: Map::new(), names: HashSet::new(), tests: Vec::new() }
    }

    /// Adds a value that all tests share.
    fn share(&mut self, name: &str, value: Value) {
        self.shared.insert(name.into(), value);
    }

    /// Adds a test. `inputs` is an object; the id is the test's place.
    fn test(&mut self, name: impl Into<String>, flags: &[&str], inputs: Value, expect: &str) {
        let name = name.into();
        let Value::Object(inputs) = inputs else { panic!("inputs are an object") };
        let (id, members) = (self.tests.len() + 1, members(&inputs));
        self.tests.push(format!(r#"{{"id":{id},"name":"{name}","flags":{},{members}"expect":"{expect}"}}"#, json!(flags)));
        assert!(self.names.insert(name), "a name twice");
    }

    fn into_text(self) -> String {
        let Self { spec, schema, shared, tests, .. } = self;
        let (shared, tests) = (members(&shared), tests.join(",\n"));
        format!("{{\"spec\":\"{spec}\",\"schema\":\"{schema}\",{shared}\"tests\":[\n{tests}\n]}}\n")
    }
}

/// `"name":value,` for each, in order of name, so that the text does not hang on a feature of `serde_json`.
fn members(map: &Map<String, Value>) -> String {
    let sorted: BTreeMap<_, _> = map.iter().collect();
    sorted.into_iter().flat_map(|(name, value)| [format!("\"{name}\":{value}"), ",".into()]).collect()
}
