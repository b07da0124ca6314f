//! Whether a probe's command writes files: by what its words look like, as nothing more can be known.

/// Programs that write to the paths in their arguments.
const WRITERS: [&str; 9] = [
    "touch", "tee", "mkdir", "mktemp", "cp", "mv", "rm", "install", "ln",
];

/// Whether a command seems to write a file that is not below one of these paths.
pub(crate) fn writes(command: &[&str], writable: &[&str]) -> bool {
    let line = command.join(" ");
    let is_writable = |path: &str| {
        let below = |mount: &str| {
            let rest = path.strip_prefix(mount.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        writable.iter().any(|mount| below(mount)) || path.starts_with("/dev/")
    };
    redirected(&line).any(|path| !is_writable(&path))
        || written(&line).any(|path| !is_writable(&path))
}

/// Where a shell sends output to: what follows `>`, but for `>&1`.
fn redirected(line: &str) -> impl Iterator<Item = String> {
    let after = line.split('>').skip(1);
    let targets = after.map(|rest| {
        let rest = rest.trim_start_matches('|').trim_start();
        let end = rest.find(|c: char| c.is_whitespace() || ";|&)".contains(c));
        let target = end.map_or(rest, |end| rest.get(..end).unwrap_or(rest));
        unquoted(target)
    });
    targets.filter(|target| !target.is_empty())
}

/// The paths that programs which write are given; of `cp` and the like all of them.
fn written(line: &str) -> impl Iterator<Item = String> {
    let simple = line.split([';', '|', '&', '\n', '(', ')']);
    simple.flat_map(|command| {
        let mut words = command.split_whitespace().map(unquoted);
        let writer = words.find(|word| {
            let program = word.rsplit('/').next().unwrap_or_default();
            WRITERS.contains(&program)
        });
        let paths: Vec<String> = match writer.as_deref().map(|path| path.rsplit('/').next()) {
            None => Vec::new(),
            // The last one is written, the others are read.
            Some(Some("cp" | "ln" | "install")) => words.next_back().into_iter().collect(),
            Some(Some("mktemp")) => {
                let given = words.find(|word| !word.starts_with('-'));
                vec![given.unwrap_or_else(|| "/tmp".to_owned())]
            }
            Some(_) => words
                .filter(|word| !word.starts_with('-') && !word.contains('>'))
                .collect(),
        };
        paths
    })
}

fn unquoted(word: &str) -> String {
    word.trim_matches(['"', '\'']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_writes_is_told_by_its_words() {
        for (command, expected) in [
            (&["cat", "/etc/ready"][..], false),
            (&["touch", "/ready"], true),
            (&["/bin/touch", "/ready"], true),
            (&["touch", "/data/ready"], false),
            (&["touch", "/database"], true),
            (&["touch", "ready"], true),
            (&["sh", "-c", "date > /ready"], true),
            (&["sh", "-c", "date >> '/ready'"], true),
            (&["sh", "-c", "date >/data/ready"], false),
            (&["sh", "-c", "nc -z localhost 80 > /dev/null 2>&1"], false),
            (
                &["sh", "-c", "curl -f localhost && echo ok | tee /ok"],
                true,
            ),
            (&["sh", "-c", "test -f /ready && rm -f /data/a /b"], true),
            (&["sh", "-c", "cp /etc/a /data/a"], false),
            (&["sh", "-c", "cp /data/a /etc/a"], true),
            (&["sh", "-c", "mktemp"], true),
            (&["sh", "-c", "mktemp -d /data/XXXX"], false),
            (&["pg_isready", "-U", "postgres"], false),
        ] {
            assert_eq!(writes(command, &["/data/"]), expected, "{command:?}");
        }
    }
}
