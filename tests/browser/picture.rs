//! The report's picture in the documentation.

use std::fs;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::support::chromium::Page;
use crate::support::files::{expect_file, root};
use crate::support::report::of_examples;

const PICTURE: &str = "docs/images/audit-report.png";
/// Of which page it is: fonts differ from machine to machine, so the picture itself is not compared.
const PAGE: &str = "docs/images/audit-report.sha256";

const WIDTH: u32 = 1120;

/// Stale is the picture of another page than the examples have now. `UPDATE_EXPECT=1` takes another one.
#[test]
fn the_picture_is_of_the_page_that_the_examples_have_now() {
    let report = of_examples("picture");
    let hash: String = Sha256::digest(fs::read(&report).unwrap())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let line = format!("{hash}\n");
    if fs::read_to_string(root().join(PAGE)).ok().as_ref() != Some(&line)
        && std::env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1")
    {
        take(&report);
    }
    expect_file(PAGE, &line);
    let picture = fs::read(root().join(PICTURE)).unwrap();
    assert!(picture.starts_with(b"\x89PNG\r\n\x1a\n"));
    assert!(picture.len() < 300_000, "{} bytes", picture.len());
}

/// With one workload found and unfolded, down to the end of its diff.
fn take(report: &Path) {
    let mut page = Page::open(report, WIDTH).expect("a picture needs Chromium");
    page.eval(
        "{ const {text} = document.forms.filter.elements;
            text.value = 'settle';
            text.dispatchEvent(new Event('input', {bubbles: true}));
            document.querySelector('#list .unfold').click(); }",
    );
    let bottom = "Math.ceil(document.querySelector('.details pre').getBoundingClientRect().bottom)";
    let height = u32::try_from(page.eval(bottom).as_u64().unwrap()).unwrap();
    let picture = page.picture(WIDTH, height + 16);
    fs::create_dir_all(root().join(PICTURE).parent().unwrap()).unwrap();
    fs::write(root().join(PICTURE), picture).unwrap();
}
