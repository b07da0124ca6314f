//! What the page shows, and what can be done with it, by mouse and by keyboard.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::support::chromium::Page;
use crate::support::report::{of_examples, of_objects};

/// The workloads that the list shows, by name.
const NAMES: &str = "#list .unfold";

fn click(page: &mut Page, selector: &str) {
    page.eval(&format!(
        "document.querySelector({}).click()",
        json!(selector)
    ));
}

/// Sets a field of the form as its user does.
fn fill(page: &mut Page, name: &str, value: &str) {
    page.eval(&format!(
        "{{ const field = document.forms.filter.elements[{}];
            if (field.type === 'checkbox') field.checked = true; else field.value = {};
            field.dispatchEvent(new Event('input', {{bubbles: true}})); }}",
        json!(name),
        json!(value)
    ));
}

#[test]
fn it_shows_what_was_found_and_asks_for_nothing() {
    let Some(mut page) = Page::open(&of_examples("shows"), 1280) else {
        return;
    };
    assert_eq!(
        page.texts("h2"),
        ["Overview", "Namespaces", "Controls", "Workloads"]
    );
    let levels = page.eval(
        "Array.from(document.querySelectorAll('svg'), (svg) => svg.getAttribute('aria-label'))",
    );
    let expected = [
        "Namespaces today: 1 privileged, 4 baseline",
        "Namespaces after hardening: 1 privileged, 2 baseline, 2 restricted",
        "Workloads today: 1 privileged, 10 baseline",
        "Workloads after hardening: 1 privileged, 4 baseline, 6 restricted",
    ];
    assert_eq!(levels, json!(expected));
    let namespaces = ["agents", "media", "payments", "shop", "staging"];
    assert_eq!(
        page.texts("[aria-labelledby=namespaces] tbody th"),
        namespaces
    );
    assert_eq!(page.texts(".matrix tbody th"), namespaces);
    assert_eq!(page.texts(NAMES).len(), 11);
    // The bars are drawn, in colours that differ.
    let drawn = page.eval(
        "new Set(Array.from(document.querySelectorAll('rect'), (rect) =>
            rect.getBoundingClientRect().width > 5 && getComputedStyle(rect).fill)).size",
    );
    assert_eq!(drawn, 3, "colours of the bars");
    assert_eq!(page.misdeeds(), "");
}

/// So that the silence of the other tests says something.
#[test]
fn a_page_that_misbehaves_is_noticed() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("misbehaves.html");
    let text = "<img src='file:///nowhere.png'><script>console.error('oh'); setTimeout(() => { throw 1; });</script>";
    fs::write(&file, text).unwrap();
    let Some(mut page) = Page::open(&file, 800) else {
        return;
    };
    let found = page.misdeeds();
    for expected in ["asks for file:///nowhere.png", "\"oh\"", "Uncaught"] {
        assert!(found.contains(expected), "{expected} is not in:\n{found}");
    }
}

#[test]
fn columns_sort_both_ways_and_levels_by_strictness() {
    let Some(mut page) = Page::open(&of_examples("sorts"), 1280) else {
        return;
    };
    for (column, sorted, first, last) in [
        (1, "ascending", "ledger", "worker"),
        (1, "descending", "worker", "ledger"),
        // As a number: 14 after 8.
        (5, "ascending", "printer", "worker"),
        (5, "descending", "worker", "printer"),
        (8, "ascending", "node-agent", "toolbox"),
    ] {
        let header = format!("#list thead th:nth-child({column})");
        click(&mut page, &format!("{header} button"));
        let names = page.texts(NAMES);
        let ends = (
            names.first().unwrap().as_str(),
            names.last().unwrap().as_str(),
        );
        if column == 8 {
            let levels = page.texts("#list tbody td:nth-child(8)");
            let rank = |level: &String| {
                ["privileged", "baseline", "restricted"]
                    .iter()
                    .position(|one| one == level)
            };
            assert!(levels.is_sorted_by_key(rank), "{levels:?}");
        } else {
            assert_eq!(ends, (first, last), "column {column}, {sorted}");
        }
        let marked = page.eval("Array.from(document.querySelectorAll('#list [aria-sort]'), (one) => [one.cellIndex + 1, one.ariaSort])");
        assert_eq!(marked, json!([[column, sorted]]));
    }
    click(
        &mut page,
        "[aria-labelledby=namespaces] thead th:nth-child(2) button",
    );
    let counts = page.texts("[aria-labelledby=namespaces] td:nth-child(2)");
    assert_eq!(counts, ["1", "2", "2", "2", "4"]);
    assert_eq!(page.misdeeds(), "");
}

#[test]
fn filters_narrow_the_list_together_and_can_be_taken_back() {
    let Some(mut page) = Page::open(&of_examples("filters"), 1280) else {
        return;
    };
    for (field, value, expected) in [
        ("text", "SHOP deploy", &["web", "worker", "old-shop"][..]),
        ("namespace", "shop", &["web", "worker"]),
        ("text", "", &["report", "web", "worker", "toolbox"]),
        ("risk", "", &["report", "web", "worker", "toolbox"]),
        ("missing", "", &["report", "web", "worker", "toolbox"]),
        ("level", "privileged", &[]),
        ("namespace", "agents", &[]),
    ] {
        fill(&mut page, field, value);
        assert_eq!(page.texts(NAMES), expected, "{field}: {value}");
        let shown = format!("{} of 11", expected.len());
        assert_eq!(page.texts("#shown"), [shown], "{field}: {value}");
    }
    click(&mut page, "#filter [type=reset]");
    page.until("document.getElementById('shown').textContent === '11 of 11'");
    assert_eq!(page.texts(NAMES).len(), 11);
    assert_eq!(page.misdeeds(), "");
}

#[test]
fn a_workload_unfolds_to_its_diff_and_why() {
    let Some(mut page) = Page::open(&of_examples("unfolds"), 1280) else {
        return;
    };
    assert_eq!(
        page.texts(".details").len(),
        0,
        "nothing is made before it is asked for"
    );
    fill(&mut page, "text", "settle");
    click(&mut page, NAMES);
    let headings = page.texts(".details h3");
    assert_eq!(
        headings,
        [
            "What its pods would have",
            "Missing",
            "Held back by guards",
            "Risks"
        ]
    );
    let diff = page.texts(".details pre").concat();
    for line in [
        "spec:\n",
        "      - name: settle\n",
        "+         allowPrivilegeEscalation: false\n",
        "+           drop: [\"ALL\"]\n",
        "+       - mountPath: /tmp # an emptyDir of its own\n",
        "+     runAsUser: 65532\n",
    ] {
        assert!(diff.contains(line), "{line:?} is not in:\n{diff}");
    }
    let why = page.texts(".details li").join("\n");
    assert!(
        why.contains("payments/hardened@1: a template, of which no pod is here"),
        "{why}"
    );
    // What is unfolded stays with its row, wherever that goes, and folds again.
    fill(&mut page, "text", "");
    click(&mut page, "#list thead th:nth-child(1) button");
    let before = page.eval("document.querySelector('.details').previousElementSibling.textContent");
    assert!(before.as_str().unwrap().contains("settle"), "{before}");
    click(&mut page, "[aria-expanded=true]");
    assert_eq!(page.texts(".details").len(), 0);
    assert_eq!(page.misdeeds(), "");
}

#[test]
fn the_keyboard_reaches_and_does_everything() {
    let Some(mut page) = Page::open(&of_examples("keyboard"), 1280) else {
        return;
    };
    page.press("Tab");
    assert_eq!(
        page.eval("document.activeElement.textContent"),
        "Skip to the workloads"
    );
    page.press("Enter");
    page.until("location.hash === '#workloads'");
    // From there on, each stop shows that it has the focus.
    let mut stops = Vec::new();
    while !stops.iter().any(|stop: &String| stop == "node-agent") {
        assert!(stops.len() < 30, "{stops:?}");
        page.press("Tab");
        let shown = "getComputedStyle(document.activeElement).outlineStyle !== 'none'";
        assert_eq!(page.eval(shown), true, "after {stops:?}");
        let stop =
            page.eval("document.activeElement.role || document.activeElement.name || document.activeElement.textContent.trim()");
        stops.push(stop.as_str().unwrap().to_owned());
    }
    for expected in [
        "text",
        "namespace",
        "level",
        "missing",
        "risk",
        "Show all",
        "Workload",
        "After",
    ] {
        assert!(
            stops.iter().any(|stop| stop == expected),
            "{expected}: {stops:?}"
        );
    }
    page.press("Enter");
    page.until("document.querySelectorAll('.details').length === 1");
    page.press(" ");
    page.until("document.querySelectorAll('.details').length === 0");
    page.eval("document.querySelector('#list thead button').focus()");
    page.press("Enter");
    page.until("document.querySelector('#list thead th').ariaSort === 'ascending'");
    assert_eq!(page.misdeeds(), "");
}

#[test]
fn it_fits_narrow_windows_dark_ones_and_paper() {
    let report = of_examples("fits");
    for width in [360, 800, 1600] {
        let Some(mut page) = Page::open(&report, width) else {
            return;
        };
        // Tables scroll in themselves; the page does not.
        let overflow = page.eval("document.documentElement.scrollWidth - innerWidth");
        assert!(overflow.as_i64().unwrap() <= 0, "at {width}: {overflow}");
        let paper = "getComputedStyle(document.body).backgroundColor";
        assert_eq!(page.eval(paper), "rgb(255, 255, 255)");
        let dark = json!({"features": [{"name": "prefers-color-scheme", "value": "dark"}]});
        page.call("Emulation.setEmulatedMedia", dark);
        assert_eq!(page.eval(paper), "rgb(13, 17, 23)");
        page.call("Emulation.setEmulatedMedia", json!({"media": "print"}));
        assert_eq!(
            page.eval("getComputedStyle(document.forms.filter).display"),
            "none"
        );
        assert_eq!(page.eval(paper), "rgb(255, 255, 255)");
        assert_eq!(page.misdeeds(), "");
    }
}

#[test]
fn it_says_what_it_could_not_see() {
    let unreadable = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "odd", "namespace": "shop"}, "spec": {"containers": 1}});
    let good = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "good", "namespace": "shop"}, "spec": {"containers": [{"name": "app", "image": "app:1"}]}});
    let Some(mut page) = Page::open(&of_objects("partial", &[unreadable, good]), 1280) else {
        return;
    };
    assert_eq!(page.texts("#partial"), ["This is not all"]);
    let notices = page.texts(".notices li").join("\n");
    assert!(notices.contains("which pods there are"), "{notices}");
    assert_eq!(page.misdeeds(), "");
}
