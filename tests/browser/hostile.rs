//! The page with thousands of workloads, and with names that mean harm.

use serde_json::{Value, json};

use crate::support::chromium::Page;
use crate::support::report::of_objects;

fn pod(namespace: &str, name: &str, container: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [{"name": container, "image": "registry.example.com/app:1"}]},
    })
}

/// What a page costs is what stands in it: the browser lays out and keeps that, however much else it knows.
#[test]
fn five_thousand_workloads_stand_in_the_page_a_hundred_at_a_time() {
    let pods: Vec<_> = (0..5000)
        .map(|at| pod(&format!("team-{}", at % 50), &format!("app-{at}"), "app"))
        .collect();
    let Some(mut page) = Page::open(&of_objects("five-thousand", &pods), 1280) else {
        return;
    };
    let list = "#list tbody tr:not(.details)";
    let pager = "[aria-labelledby=workloads] .pager";
    let nodes = "document.querySelectorAll('*').length";
    assert_eq!(page.texts("#shown"), ["5000 of 5000"]);
    assert_eq!(page.texts(list).len(), 100);
    assert_eq!(
        page.texts(&format!("{pager} span")),
        ["1\u{2013}100 of 5000"]
    );
    let many = page.eval(nodes);
    assert!(many.as_u64().unwrap() < 6000, "{many} elements");

    // Everything is found, sorted and turned over, though most of it does not stand there.
    page.eval("document.querySelector('#list thead button').click()");
    assert_eq!(page.texts("#list .unfold").last().unwrap(), "app-99");
    page.eval(&format!(
        "document.querySelector('{pager} button:last-child').click()"
    ));
    assert_eq!(page.texts("#list .unfold").first().unwrap(), "app-100");
    page.eval("{ const {text} = document.forms.filter.elements; text.value = 'app-4999'; text.dispatchEvent(new Event('input', {bubbles: true})); }");
    assert_eq!(page.texts("#list .unfold"), ["app-4999"]);
    page.eval("document.querySelector('#list .unfold').click()");
    assert_eq!(page.texts(".details").len(), 1);
    page.eval("document.forms.filter.reset()");
    page.until("document.getElementById('shown').textContent === '5000 of 5000'");

    // On paper all of it.
    page.eval("dispatchEvent(new Event('beforeprint'))");
    assert_eq!(page.texts(list).len(), 5000);
    page.eval("dispatchEvent(new Event('afterprint'))");
    assert_eq!(page.texts(list).len(), 100);
    assert_eq!(page.misdeeds(), "");
}

#[test]
fn names_are_text_whatever_they_hold() {
    let names = [
        "</script><script>document.title = 'taken'</script>",
        "<!--<script>",
        "<img src=x onerror=\"document.title = 'taken'\">",
        "\" onmouseover=\"document.title='taken'",
        "{{ audit }} ${1} &lt;b&gt; \\u003cb\\u003e",
        "__proto__",
        "\u{202e}gnp.exe \u{2028} \u{0}\u{7f}",
        "]].spec.[x].y",
        "",
    ];
    for name in names {
        let file = "hostile-name";
        let report = of_objects(
            file,
            &[pod(name, name, name), pod("plain", "plain", "plain")],
        );
        let Some(mut page) = Page::open(&report, 1280) else {
            return;
        };
        page.eval("for (const button of document.querySelectorAll('.unfold')) button.click()");
        assert_eq!(page.texts(".details").len(), 2, "{name:?}");
        assert_eq!(
            page.eval("document.title"),
            "Pod hardening audit",
            "{name:?}"
        );
        assert_eq!(
            page.eval("document.querySelectorAll('script').length"),
            3,
            "{name:?}"
        );
        assert_eq!(
            page.eval("document.querySelectorAll('img').length"),
            0,
            "{name:?}"
        );
        // And it is shown as it is, where HTML can hold it at all.
        let shown = page.texts("#list .unfold").concat();
        if !name.contains('\u{0}') {
            assert!(shown.contains(name.trim()), "{name:?} in {shown:?}");
        }
        let diff = page.texts(".details pre").concat();
        assert!(
            diff.contains("allowPrivilegeEscalation: false"),
            "{name:?}: {diff}"
        );
        assert_eq!(page.misdeeds(), "", "{name:?}");
    }
}
