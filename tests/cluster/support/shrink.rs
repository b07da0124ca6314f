//! The smallest input that still fails, for people to read.

use serde_json::Value;

/// Removes members and items, one at a time and the large ones first, as long as the input still fails.
pub(crate) async fn smallest(
    mut input: Value,
    mut fails: impl AsyncFnMut(&Value) -> bool,
) -> Value {
    let mut skip = 0;
    loop {
        let places = places(&input);
        let Some(place) = places.get(skip) else {
            return input;
        };
        let smaller = without(&input, place);
        if fails(&smaller).await {
            input = smaller;
        } else {
            skip += 1;
        }
    }
}

/// Pointers to everything that can be taken out, what holds others before what it holds.
pub(crate) fn places(value: &Value) -> Vec<Vec<String>> {
    let mut found = vec![Vec::new()];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        next += 1;
        let inner = match at(value, &path) {
            Value::Object(members) => members.keys().cloned().collect(),
            Value::Array(items) => (0..items.len()).map(|i| i.to_string()).collect(),
            _ => Vec::new(),
        };
        found.extend(inner.into_iter().map(|step| {
            let mut longer = path.clone();
            longer.push(step);
            longer
        }));
    }
    found.remove(0);
    found
}

fn at<'v>(value: &'v Value, path: &[String]) -> &'v Value {
    path.iter().fold(value, |value, step| match value {
        Value::Array(items) => &items[step.parse::<usize>().unwrap()],
        _ => &value[step.as_str()],
    })
}

/// The value with another one in that place.
pub(crate) fn replaced(value: &Value, path: &[String], by: Value) -> Value {
    let mut changed = value.clone();
    *at_mut(&mut changed, path) = by;
    changed
}

fn at_mut<'v>(value: &'v mut Value, path: &[String]) -> &'v mut Value {
    path.iter().fold(value, |value, step| match value {
        Value::Array(items) => &mut items[step.parse::<usize>().unwrap()],
        _ => &mut value[step.as_str()],
    })
}

fn without(value: &Value, path: &[String]) -> Value {
    let mut smaller = value.clone();
    let (last, above) = path.split_last().unwrap();
    match at_mut(&mut smaller, above) {
        Value::Array(items) => {
            items.remove(last.parse().unwrap());
        }
        Value::Object(members) => {
            members.remove(last);
        }
        _ => {}
    }
    smaller
}
