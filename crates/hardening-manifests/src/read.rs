//! From paths to manifests.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::value;

/// One document of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Where it stands.
    pub source: Source,
    /// What it says. Not checked to be a Kubernetes object.
    pub value: Value,
}

/// A file with all of its text, for programs that write it again.
#[derive(Clone, Debug, PartialEq)]
pub struct File {
    /// The file as it was named, or `standard input`.
    pub name: Arc<str>,
    /// Its text, without a byte order mark.
    pub text: String,
    /// What it is written in.
    pub format: Format,
    /// Its documents in their order, without those that are empty or null.
    pub documents: Vec<Document>,
}

/// One document of a [`File`].
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// What it says.
    pub manifest: Manifest,
    /// Its bytes in the file's text; of YAML, the lines between two separators.
    pub bytes: Range<usize>,
}

/// What a file is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Documents separated by lines that begin with `---`.
    Yaml,
    /// JSON values one after the other.
    Json,
}

/// Where a manifest, or an item of a list in it, stands; displayed as `policies.yaml, document 2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file as it was named, or `standard input`.
    pub file: Arc<str>,
    /// Which document of the file, from 1, where the file has several. Empty documents count, so that
    /// the number can be found again in the file.
    pub document: Option<usize>,
    /// Which of the items of a list, from 1.
    pub item: Option<usize>,
}

/// Why manifests could not be read. The text names the file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read.
    #[error("{file}")]
    Io {
        /// The file or folder.
        file: String,
        /// Why not.
        source: io::Error,
    },
    /// A folder without a single manifest is most likely the wrong one.
    #[error("{folder}: the folder has no file that ends in .json, .yaml or .yml")]
    NoManifests {
        /// The folder.
        folder: String,
    },
    /// The file is no text.
    #[error("{file}: not text in UTF-8 or UTF-16")]
    NotText {
        /// The file.
        file: String,
    },
    /// A document is no YAML.
    #[error("{at}: not valid YAML")]
    Yaml {
        /// The document.
        at: Source,
        /// What is wrong, with line and column in the file.
        source: Box<serde_saphyr::Error>,
    },
    /// A document is no JSON.
    #[error("{at}: not valid JSON")]
    Json {
        /// The document.
        at: Source,
        /// What is wrong, with line and column in the file.
        source: serde_json::Error,
    },
    /// Something other than a comment follows `---` on its line, which kubectl refuses too.
    #[error("{file}: line {line}: {text:?} follows the document separator")]
    Separator {
        /// The file.
        file: String,
        /// The separator's line, from 1.
        line: usize,
        /// What follows it.
        text: String,
    },
}

/// Reads the manifests in `paths`, in that order: files, folders (their files that end in `.json`,
/// `.yaml` or `.yml`, by name, without those of folders in them), and `-` for standard input.
///
/// Documents that are empty or null are left out.
///
/// # Errors
///
/// Where something cannot be read, or is not YAML or JSON.
pub fn read<P: AsRef<Path>>(paths: &[P]) -> Result<Vec<Manifest>, Error> {
    let files = read_files(paths)?;
    Ok(files.into_iter().flat_map(manifests).collect())
}

/// Reads the files that [`read`] reads, with their text.
///
/// # Errors
///
/// As [`read`].
pub fn read_files<P: AsRef<Path>>(paths: &[P]) -> Result<Vec<File>, Error> {
    let loaded = load(paths)?;
    loaded
        .iter()
        .map(|(name, bytes)| parse_file(name, bytes))
        .collect()
}

/// The names and bytes of the files that [`read`] reads: for programs that look whether they have changed.
///
/// # Errors
///
/// Where something cannot be read.
pub fn load<P: AsRef<Path>>(paths: &[P]) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let mut loaded = Vec::new();
    for path in paths.iter().map(AsRef::as_ref) {
        for file in files(path)? {
            loaded.push(load_one(&file)?);
        }
    }
    Ok(loaded)
}

/// Reads what [`read`] reads, as much of it as can be read: what cannot is left out, with the reasons.
#[must_use]
pub fn read_what_can_be<P: AsRef<Path>>(paths: &[P]) -> (Vec<Manifest>, Vec<Error>) {
    let (mut manifests, mut errors) = (Vec::new(), Vec::new());
    for path in paths.iter().map(AsRef::as_ref) {
        let files = files(path).unwrap_or_else(|error| {
            errors.push(error);
            Vec::new()
        });
        for file in files {
            let documents = load_one(&file)
                .and_then(|(name, bytes)| Ok((decode(&name, &bytes)?, name)))
                .and_then(|(text, name)| Ok((documents(&name, &text)?.1, name)));
            let (documents, name) = match documents {
                Ok(documents) => documents,
                Err(error) => {
                    errors.push(error);
                    continue;
                }
            };
            let several = documents.len() > 1;
            let name: Arc<str> = name.into();
            for (index, document) in documents.into_iter().enumerate() {
                match document {
                    Ok((Value::Null, _)) => {}
                    Ok((value, _)) => manifests.push(Manifest {
                        source: Source::new(&name, several.then_some(index + 1)),
                        value,
                    }),
                    Err(error) => errors.push(error),
                }
            }
        }
    }
    (manifests, errors)
}

/// The manifests in the text `bytes`; `file` is its name in messages.
///
/// # Errors
///
/// Where it is not YAML or JSON.
pub fn parse(file: &str, bytes: &[u8]) -> Result<Vec<Manifest>, Error> {
    parse_file(file, bytes).map(|file| manifests(file).collect())
}

/// The file that has the text `bytes`; `name` is its name in messages.
///
/// # Errors
///
/// As [`parse`].
pub fn parse_file(name: &str, bytes: &[u8]) -> Result<File, Error> {
    let text = decode(name, bytes)?;
    let (format, documents) = documents(name, &text)?;
    let values: Vec<Placed> = documents.into_iter().collect::<Result<_, _>>()?;
    let several = values.len() > 1;
    let name: Arc<str> = name.into();
    let numbered = values.into_iter().enumerate();
    let documents = numbered
        .filter(|(_, (value, _))| !value.is_null())
        .map(|(index, (value, bytes))| Document {
            manifest: Manifest {
                source: Source::new(&name, several.then_some(index + 1)),
                value,
            },
            bytes,
        })
        .collect();
    Ok(File {
        name,
        text,
        format,
        documents,
    })
}

fn manifests(file: File) -> impl Iterator<Item = Manifest> {
    file.documents.into_iter().map(|document| document.manifest)
}

fn load_one(path: &Path) -> Result<(String, Vec<u8>), Error> {
    let (name, bytes) = match path == Path::new("-") {
        true => {
            let mut bytes = Vec::new();
            let read = io::stdin().read_to_end(&mut bytes);
            ("standard input".to_owned(), read.map(|_| bytes))
        }
        false => (path.display().to_string(), fs::read(path)),
    };
    match bytes {
        Ok(bytes) => Ok((name, bytes)),
        Err(error) => Err(io_error(&name, error)),
    }
}

fn files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let error = |e| io_error(&path.display().to_string(), e);
    if path == Path::new("-") || !fs::metadata(path).map_err(error)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(error)? {
        let file = entry.map_err(error)?.path();
        let is_manifest = file
            .extension()
            .is_some_and(|e| e == "json" || e == "yaml" || e == "yml");
        // Follows symbolic links: in a mounted ConfigMap every file is one.
        if is_manifest && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    match files.is_empty() {
        true => Err(Error::NoManifests {
            folder: path.display().to_string(),
        }),
        false => Ok(files),
    }
}

fn io_error(file: &str, source: io::Error) -> Error {
    Error::Io {
        file: file.to_owned(),
        source,
    }
}

/// UTF-8, or UTF-16 with a byte order mark, which is what redirecting output gives on Windows.
fn decode(file: &str, bytes: &[u8]) -> Result<String, Error> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let units: Vec<u16> = pairs.iter().copied().map(unit).collect();
        rest.is_empty()
            .then(|| String::from_utf16(&units).ok())
            .flatten()
    };
    let text = match bytes {
        [0xEF, 0xBB, 0xBF, text @ ..] => String::from_utf8(text.to_vec()).ok(),
        [0xFF, 0xFE, text @ ..] => utf16(text, u16::from_le_bytes),
        [0xFE, 0xFF, text @ ..] => utf16(text, u16::from_be_bytes),
        text => String::from_utf8(text.to_vec()).ok(),
    };
    text.ok_or_else(|| Error::NotText {
        file: file.to_owned(),
    })
}

/// What a document says, and its bytes in the text.
type Placed = (Value, Range<usize>);

/// The documents of a file, each by itself.
type Documents = (Format, Vec<Result<Placed, Error>>);

fn documents(file: &str, text: &str) -> Result<Documents, Error> {
    match text.trim_start().starts_with('{') {
        true => Ok(json_documents(file, text)),
        false => Ok((Format::Yaml, yaml_documents(file, text)?)),
    }
}

/// JSON documents one after the other; or, as kubectl has it, YAML that happens to begin with a brace.
fn json_documents(file: &str, text: &str) -> Documents {
    let (values, error) = value::from_json(text);
    let Some(source) = error else {
        return (Format::Json, values.into_iter().map(Ok).collect());
    };
    if let Ok(documents) = yaml_documents(file, text)
        && documents.iter().all(Result::is_ok)
    {
        return (Format::Yaml, documents);
    }
    let error = Error::Json {
        at: Source::new(&file.into(), Some(values.len() + 1).filter(|at| *at > 1)),
        source,
    };
    let documents = values.into_iter().map(Ok).chain([Err(error)]);
    (Format::Json, documents.collect())
}

fn yaml_documents(file: &str, text: &str) -> Result<Vec<Result<Placed, Error>>, Error> {
    let documents = split(file, text)?;
    let several = documents.len() > 1;
    let read = |(index, part): (usize, &Part)| {
        let document = text.get(part.bytes.clone()).unwrap_or_default();
        value::from_yaml(document)
            // Once more, as many lines down as the document stands, for the line's number in the file.
            .or_else(|_| value::from_yaml(&("\n".repeat(part.lines_before) + document)))
            .map(|value| (value, part.bytes.clone()))
            .map_err(|source| Error::Yaml {
                at: Source::new(&file.into(), several.then_some(index + 1)),
                source: Box::new(source),
            })
    };
    Ok(documents.iter().enumerate().map(read).collect())
}

/// Where a document of YAML stands in the text.
struct Part {
    bytes: Range<usize>,
    lines_before: usize,
}

/// Splits at lines that begin with `---`, as kubectl does: each document is then read on its own.
fn split(file: &str, text: &str) -> Result<Vec<Part>, Error> {
    let mut documents = Vec::new();
    let (mut begin, mut offset, mut lines_before) = (0, 0, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if let Some(rest) = line.strip_prefix("---") {
            let rest = rest.trim();
            if !rest.is_empty() && !rest.starts_with('#') {
                return Err(Error::Separator {
                    file: file.to_owned(),
                    line: index + 1,
                    text: rest.to_owned(),
                });
            }
            documents.push(Part {
                bytes: begin..offset,
                lines_before,
            });
            begin = offset + line.len();
            lines_before = index + 1;
        }
        offset += line.len();
    }
    documents.push(Part {
        bytes: begin..text.len(),
        lines_before,
    });
    // A separator at the file's beginning or end opens no document there.
    let is_empty = |part: &Part| says_nothing(text.get(part.bytes.clone()).unwrap_or_default());
    documents.pop_if(|last| is_empty(last));
    if documents.first().is_some_and(is_empty) {
        documents.remove(0);
    }
    Ok(documents)
}

/// Whether there is nothing but comments and directives.
fn says_nothing(text: &str) -> bool {
    text.lines()
        .map(str::trim)
        .all(|line| line.is_empty() || line.starts_with('#') || line.starts_with('%'))
}

impl Source {
    pub(crate) fn new(file: &Arc<str>, document: Option<usize>) -> Self {
        Self {
            file: Arc::clone(file),
            document,
            item: None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(document) = self.document {
            write!(f, ", document {document}")?;
        }
        if let Some(item) = self.item {
            write!(f, ", item {item}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each manifest as `source: value`, or the error with its causes.
    fn parsed(text: impl AsRef<[u8]>) -> Vec<String> {
        shown(parse("f.yaml", text.as_ref()))
    }

    fn shown(manifests: Result<Vec<Manifest>, Error>) -> Vec<String> {
        match manifests {
            Ok(manifests) => manifests
                .iter()
                .map(|manifest| format!("{}: {}", manifest.source, manifest.value))
                .collect(),
            Err(error) => {
                let mut text = error.to_string();
                let mut cause = std::error::Error::source(&error);
                while let Some(error) = cause {
                    text += &format!(": {error}");
                    cause = error.source();
                }
                vec![text]
            }
        }
    }

    #[test]
    fn what_can_be_read_is_read_and_the_rest_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, text) in [
            ("a.yaml", "a: 1\n---\nb: [\n---\nc: 3\n"),
            ("b.json", "{\"d\": 4}\n{\"e\": "),
            ("c.yaml", "--- f: 6\n"),
            ("d.yaml", "g: 7\n"),
        ] {
            fs::write(path(name), text).unwrap();
        }
        fs::write(path("e.yaml"), [0xFF]).unwrap();
        fs::create_dir(path("empty")).unwrap();
        let paths = [path("absent"), path("empty"), folder.path().to_owned()];
        let (manifests, errors) = read_what_can_be(&paths);
        let inside = |text: String| text.replace(&format!("{}/", folder.path().display()), "");
        let manifests = manifests.into_iter();
        let read: Vec<String> = manifests
            .map(|manifest| inside(format!("{}: {}", manifest.source, manifest.value)))
            .collect();
        assert_eq!(
            read,
            [
                "a.yaml, document 1: {\"a\":1}",
                "a.yaml, document 3: {\"c\":3}",
                "b.json, document 1: {\"d\":4}",
                "d.yaml: {\"g\":7}"
            ]
        );
        let errors: Vec<String> = errors
            .iter()
            .map(|error| inside(error.to_string()))
            .collect();
        assert_eq!(
            errors,
            [
                "absent",
                "empty: the folder has no file that ends in .json, .yaml or .yml",
                "a.yaml, document 2: not valid YAML",
                "b.json, document 2: not valid JSON",
                "c.yaml: line 1: \"f: 6\" follows the document separator",
                "e.yaml: not text in UTF-8 or UTF-16"
            ]
        );
    }

    #[test]
    fn documents_are_numbered_where_there_are_several() {
        let cases: &[(&str, &[&str])] = &[
            ("a: 1", &["f.yaml: {\"a\":1}"]),
            ("---\na: 1\n---\n", &["f.yaml: {\"a\":1}"]),
            ("# licence\n--- # first\na: 1\n", &["f.yaml: {\"a\":1}"]),
            ("%YAML 1.1\n---\na: 1\n", &["f.yaml: {\"a\":1}"]),
            (
                "a: 1\n---\na: 2\n",
                &[
                    "f.yaml, document 1: {\"a\":1}",
                    "f.yaml, document 2: {\"a\":2}",
                ],
            ),
            (
                "a: 1\r\n---\r\n# nothing\r\n---\r\na: 3\r\n",
                &[
                    "f.yaml, document 1: {\"a\":1}",
                    "f.yaml, document 3: {\"a\":3}",
                ],
            ),
            ("a: |\n  ---\n  b\n", &["f.yaml: {\"a\":\"---\\nb\\n\"}"]),
            ("", &[]),
            ("# only a comment\n", &[]),
            ("null", &[]),
            ("{\"a\":1}", &["f.yaml: {\"a\":1}"]),
            (
                "{\"a\":1}\n{\"a\":2}",
                &[
                    "f.yaml, document 1: {\"a\":1}",
                    "f.yaml, document 2: {\"a\":2}",
                ],
            ),
            (
                "{a: 1}\n---\nb: 2",
                &[
                    "f.yaml, document 1: {\"a\":1}",
                    "f.yaml, document 2: {\"b\":2}",
                ],
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(parsed(text), *expected, "{text:?}");
        }
    }

    #[test]
    fn a_file_keeps_its_text_and_where_its_documents_stand_in_it() {
        let cases: &[(&str, Format, &[&str])] = &[
            (
                "# licence\n---\na: 1 # one\n--- # two\na: 2\n---\n# nothing\n---\nnull\n---\na: ö",
                Format::Yaml,
                &["a: 1 # one\n", "a: 2\n", "a: ö"],
            ),
            (
                " {\"a\":1}\n{\"b\":2} ",
                Format::Json,
                &["{\"a\":1}", "{\"b\":2}"],
            ),
            ("{a: 1}\n---\nb: 2", Format::Yaml, &["{a: 1}\n", "b: 2"]),
        ];
        for (text, format, expected) in cases {
            let file = parse_file("f.yaml", text.as_bytes()).unwrap();
            let documents: Vec<&str> = file
                .documents
                .iter()
                .map(|d| &file.text[d.bytes.clone()])
                .collect();
            assert_eq!(
                (file.format, documents),
                (*format, expected.to_vec()),
                "{text:?}"
            );
            assert_eq!(file.text, *text);
        }
    }

    #[test]
    fn text_may_have_a_byte_order_mark() {
        let utf16 = "a: ö".encode_utf16();
        let little: Vec<u8> = utf16.clone().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = utf16.flat_map(u16::to_be_bytes).collect();
        for bytes in [
            [b"\xEF\xBB\xBF", "a: ö".as_bytes()].concat(),
            [b"\xFF\xFE", little.as_slice()].concat(),
            [b"\xFE\xFF", big.as_slice()].concat(),
        ] {
            assert_eq!(parsed(bytes), ["f.yaml: {\"a\":\"ö\"}"]);
        }
    }

    #[test]
    fn errors_name_file_document_and_line() {
        let cases: &[(&[u8], &[&str])] = &[
            (
                b"a: 1\n---\nb: 1\nc: [\n",
                &["f.yaml, document 2: not valid YAML: ", "line 4"],
            ),
            (b"a: b: c", &["f.yaml: not valid YAML: ", "line 1"]),
            (
                b"{\"a\": 1}\n{\"b\": }",
                &["f.yaml, document 2: not valid JSON: ", "line 2"],
            ),
            (
                b"a: 1\n--- b",
                &["f.yaml: line 2: \"b\" follows the document separator"],
            ),
            (b"a: \xFF", &["f.yaml: not text in UTF-8 or UTF-16"]),
        ];
        for (text, parts) in cases {
            let [error] = parsed(text).try_into().unwrap();
            assert!(!error.contains('\n'), "{error}");
            for part in *parts {
                assert!(error.contains(part), "{error:?} lacks {part:?}");
            }
        }
    }

    #[test]
    fn a_folder_gives_its_own_manifests_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("b.yml", "b: 1"),
            ("a.yaml", "a: 1"),
            ("c.json", "{}"),
            ("d.txt", "["),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        fs::create_dir(folder.path().join("e.yaml")).unwrap();
        fs::write(folder.path().join("e.yaml/f.yaml"), "[").unwrap();
        let values: Vec<Value> = read(&[folder.path()])
            .unwrap()
            .into_iter()
            .map(|manifest| manifest.value)
            .collect();
        assert_eq!(Value::Array(values).to_string(), r#"[{"a":1},{"b":1},{}]"#);
    }

    #[test]
    fn a_mounted_config_map_is_a_folder_like_any_other() {
        let folder = tempfile::tempdir().unwrap();
        let version = folder.path().join("..2026_01_01");
        fs::create_dir(&version).unwrap();
        fs::write(version.join("a.yaml"), "a: 1").unwrap();
        std::os::unix::fs::symlink("..2026_01_01", folder.path().join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/a.yaml", folder.path().join("a.yaml")).unwrap();
        assert_eq!(read(&[folder.path()]).unwrap().len(), 1);
    }

    #[test]
    fn a_path_that_gives_nothing_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        for (path, problem) in [
            (folder.path().to_owned(), "the folder has no file"),
            (folder.path().join("absent.yaml"), "No such file"),
        ] {
            let [error] = shown(read(&[&path])).try_into().unwrap();
            assert!(error.starts_with(&path.display().to_string()), "{error}");
            assert!(error.contains(problem), "{error}");
        }
    }
}
