//! Names for the objects that PSPs become.

use std::collections::BTreeSet;

/// How much of a PSP's name is used: names of objects may be 253 long, and names of files with kind and namespace 255.
const LONGEST: usize = 140;

/// Names that are taken. The same questions in the same order give the same names.
#[derive(Debug, Default)]
pub(crate) struct Taken(BTreeSet<String>);

impl Taken {
    /// A name made of a PSP's: `psp-restricted`, and `psp-restricted-2` where that is taken. With each name the
    /// same with one of the endings is taken too.
    pub(crate) fn name(&mut self, psp: &str, endings: &[&str]) -> String {
        // Names of PSPs are ASCII.
        let psp = psp
            .get(..LONGEST)
            .unwrap_or(psp)
            .trim_end_matches(['-', '.']);
        let mut name = format!("psp-{psp}");
        let mut number = 1;
        while endings
            .iter()
            .chain(&[""])
            .any(|ending| self.0.contains(&format!("{name}{ending}")))
        {
            number += 1;
            name = format!("psp-{psp}-{number}");
        }
        let endings = endings.iter().chain(&[""]);
        self.0
            .extend(endings.map(|ending| format!("{name}{ending}")));
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_given_twice() {
        let mut taken = Taken::default();
        let mut names = Vec::new();
        for psp in ["a", "a", "a-2", "a-capabilities", "a.b"] {
            names.push(taken.name(psp, &["-capabilities"]));
        }
        let expected = [
            "psp-a",
            "psp-a-2",
            "psp-a-2-2",
            "psp-a-capabilities-2",
            "psp-a.b",
        ];
        assert_eq!(names, expected);
        let long = "a".repeat(253);
        assert_eq!(taken.name(&long, &[]).len(), 4 + LONGEST);
    }
}
