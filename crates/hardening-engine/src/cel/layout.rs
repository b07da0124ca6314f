//! Expressions over several lines, for whoever reads the compiled objects: an operation, a condition or a step
//! on each. Only the space between words changes, and parentheses go that say nothing. No line ends with a
//! space and none has a tab, so that YAML shows an expression as a block.
//!
//! It reads what is generated here, not any CEL: operators that a line may break at have a space on either
//! side, and a comma has one after it.

/// How wide a line may be before it is broken.
const WIDTH: usize = 100;
const STEP: usize = 2;

/// An expression laid out.
pub(super) fn laid_out(expression: &str) -> String {
    let mut rest = expression;
    let items = parse(&mut rest);
    let mut page = Page {
        text: String::with_capacity(expression.len() * 2),
        line: 0,
    };
    page.write(without_parentheses(&items), 0, 0);
    page.text
}

/// What an expression is made of, between its brackets.
#[derive(Debug)]
enum Item<'t> {
    Text(&'t str),
    Separator(Separator),
    /// Brackets, what stands between them, and how wide that is on one line.
    Brackets(char, Vec<Item<'t>>, char, usize),
}

/// Where a line may be broken, the loosest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Separator {
    Comma,
    Then,
    Else,
    Or,
    And,
    Plus,
}

impl Separator {
    const ALL: [Self; 6] = [
        Self::Comma,
        Self::Then,
        Self::Else,
        Self::Or,
        Self::And,
        Self::Plus,
    ];

    fn text(self) -> &'static str {
        match self {
            Self::Comma => ", ",
            Self::Then => " ? ",
            Self::Else => " : ",
            Self::Or => " || ",
            Self::And => " && ",
            Self::Plus => " + ",
        }
    }
}

// --- reading ---

/// The items up to the bracket that closes them, which is left in `rest`.
fn parse<'t>(rest: &mut &'t str) -> Vec<Item<'t>> {
    let mut items = Vec::new();
    while let Some(next) = rest.chars().next() {
        let closes = match next {
            '(' => ')',
            '[' => ']',
            '{' => '}',
            ')' | ']' | '}' => break,
            _ => {
                items.push(word(rest));
                continue;
            }
        };
        take(rest, 1);
        let inner = parse(rest);
        take(rest, 1);
        let width = 2 + width(&inner);
        items.push(Item::Brackets(next, inner, closes, width));
    }
    items
}

/// A separator, or the text up to the next one or the next bracket.
fn word<'t>(rest: &mut &'t str) -> Item<'t> {
    let separator = |text: &str| {
        let mut all = Separator::ALL.into_iter();
        all.find(|separator| text.starts_with(separator.text()))
    };
    if let Some(separator) = separator(rest) {
        take(rest, separator.text().len());
        return Item::Separator(separator);
    }
    let mut quoted = None;
    let mut escaped = false;
    let ends = |(at, c): (usize, char)| {
        match (quoted, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(quote), c) if quote == c => quoted = None,
            (None, '"' | '\'') => quoted = Some(c),
            (None, '(' | ')' | '[' | ']' | '{' | '}') => return Some(at),
            (None, ' ' | ',') if separator(rest.get(at..).unwrap_or_default()).is_some() => {
                return Some(at);
            }
            _ => {}
        }
        None
    };
    let end = rest.char_indices().find_map(ends).unwrap_or(rest.len());
    Item::Text(take(rest, end))
}

fn take<'t>(rest: &mut &'t str, length: usize) -> &'t str {
    let (taken, left) = rest.split_at_checked(length).unwrap_or((rest, ""));
    *rest = left;
    taken
}

/// How wide items are on one line.
fn width(items: &[Item<'_>]) -> usize {
    let of = |item: &Item<'_>| match item {
        Item::Text(text) => text.chars().count(),
        Item::Separator(separator) => separator.text().len(),
        Item::Brackets(.., width) => *width,
    };
    items.iter().map(of).sum()
}

fn is(item: &Item<'_>, wanted: Separator) -> bool {
    matches!(item, Item::Separator(separator) if *separator == wanted)
}

fn has(items: &[Item<'_>], wanted: Separator) -> bool {
    items.iter().any(|item| is(item, wanted))
}

/// What stands at either side of the first of these separators.
fn halves<'i, 't>(
    items: &'i [Item<'t>],
    at: Separator,
) -> Option<(&'i [Item<'t>], &'i [Item<'t>])> {
    let place = items.iter().position(|item| is(item, at))?;
    let (before, after) = items.split_at_checked(place)?;
    Some((before, after.get(1..)?))
}

/// What is between parentheses that hold all there is.
fn without_parentheses<'i, 't>(items: &'i [Item<'t>]) -> &'i [Item<'t>] {
    match items {
        [Item::Brackets('(', inner, ..)] => without_parentheses(inner),
        items => items,
    }
}

/// How deep an expression nests, as the API server's parser counts it: brackets, and each choice in what is so
/// otherwise. It is found without nesting, as what nests too deep is never laid out.
pub(super) fn nesting(expression: &str) -> usize {
    let mut rest = expression;
    // In each bracket that is open: the level of an item, and that of the choice that it has come to.
    let mut open = vec![(1, 1)];
    let mut deepest = 1;
    while let Some(next) = rest.chars().next() {
        let (level, here) = open.last().copied().unwrap_or((1, 1));
        match next {
            '(' | '[' | '{' => open.push((here + 1, here + 1)),
            ')' | ']' | '}' => drop(open.pop()),
            _ => {
                let deeper = match word(&mut rest) {
                    Item::Separator(Separator::Else) => here + 1,
                    Item::Separator(Separator::Comma) => level,
                    _ => here,
                };
                if let Some(last) = open.last_mut() {
                    *last = (level, deeper);
                }
                deepest = deepest.max(deeper);
                continue;
            }
        }
        take(&mut rest, 1);
        deepest = open.last().map_or(deepest, |(_, here)| deepest.max(*here));
    }
    deepest
}

// --- writing ---

struct Page {
    text: String,
    /// Where the last line begins.
    line: usize,
}

impl Page {
    /// Writes items from here on; lines after the first are indented, and there must be room for `after`
    /// characters behind the last.
    fn write(&mut self, items: &[Item<'_>], indent: usize, after: usize) {
        if self.fits(width(items) + after) {
            self.flat(items);
        } else if has(items, Separator::Then) {
            self.choice(items, indent, after);
        } else if let Some(operator) = [Separator::Or, Separator::And, Separator::Plus]
            .into_iter()
            .find(|operator| has(items, *operator))
        {
            for (number, operand) in items.split(|item| is(item, operator)).enumerate() {
                if number > 0 {
                    self.next_line(indent);
                    self.text.push_str(operator.text().trim_start());
                }
                self.write(operand, indent, after);
            }
        } else {
            self.chain(items, indent, after);
        }
    }

    /// `condition ? this :` on a line each, and at last what is so otherwise; nothing takes no line.
    fn choice(&mut self, items: &[Item<'_>], indent: usize, after: usize) {
        let mut rest = items;
        while let Some((condition, (then, otherwise))) = halves(rest, Separator::Then)
            .and_then(|(condition, rest)| Some((condition, halves(rest, Separator::Else)?)))
        {
            self.write(condition, indent, 2);
            self.text.push_str(" ?");
            let is_nothing =
                matches!(otherwise, [Item::Brackets(_, inner, ..)] if inner.is_empty());
            let end = if is_nothing { 6 + after } else { 3 };
            if self.fits(width(then) + end) {
                self.text.push(' ');
            } else {
                self.next_line(indent + STEP);
            }
            self.write(then, indent + STEP, 2);
            self.text.push_str(" :");
            rest = otherwise;
            if is_nothing && self.fits(width(rest) + 1 + after) {
                self.text.push(' ');
                break;
            }
            self.next_line(indent);
            let inner = without_parentheses(rest);
            if has(inner, Separator::Then) {
                rest = inner;
            }
        }
        self.write(rest, indent, after);
    }

    /// Words and brackets one after the other, with a line for each step of a chain: `list.filter(x, …)` and
    /// its like.
    fn chain(&mut self, items: &[Item<'_>], indent: usize, after: usize) {
        let mut indent = indent;
        let mut left = items;
        let mut broken = false;
        while let Some((item, rest)) = left.split_first() {
            match item {
                Item::Text(text) => {
                    let is_step = text.starts_with('.')
                        && left.len() < items.len()
                        && matches!(rest, [Item::Brackets(_, inner, ..), ..] if has(inner, Separator::Comma));
                    if is_step {
                        if !broken {
                            indent += STEP;
                            broken = true;
                        }
                        self.next_line(indent);
                    }
                    self.text.push_str(text);
                }
                Item::Separator(separator) => self.text.push_str(separator.text()),
                Item::Brackets(opens, inner, closes, width) => {
                    let after = match rest.is_empty() {
                        true => after,
                        false => 0,
                    };
                    if self.fits(*width + after) {
                        self.flat(std::slice::from_ref(item));
                    } else {
                        self.text.push(*opens);
                        self.between_brackets(*opens, inner, indent, after + 1);
                        self.text.push(*closes);
                    }
                }
            }
            left = rest;
        }
    }

    fn between_brackets(&mut self, opens: char, inner: &[Item<'_>], indent: usize, after: usize) {
        if !has(inner, Separator::Comma) {
            let is_one_thing = inner.iter().all(|item| !matches!(item, Item::Separator(_)));
            let deeper = if is_one_thing { 0 } else { STEP };
            return self.write(inner, indent + deeper, after);
        }
        let parts: Vec<&[Item<'_>]> = inner.split(|item| is(item, Separator::Comma)).collect();
        let is_word = |part: &&[Item<'_>]| matches!(part, [Item::Text(_)]);
        let words = parts.iter().copied().take_while(is_word).count();
        // Literals fill their lines; the names of a macro's variables stay where it opens, and so does a map
        // that is all it makes.
        let fills = opens != '{' && words == parts.len();
        let names = if opens == '(' && !fills { words } else { 0 };
        let is_map = |part: &&[Item<'_>]| matches!(part, [Item::Brackets('{', ..)]);
        let makes_a_map = names + 1 == parts.len() && parts.last().is_some_and(is_map);
        let deeper = if makes_a_map { 0 } else { STEP };
        for (number, part) in parts.iter().enumerate() {
            let stays = number < names
                || makes_a_map
                || (fills && number > 0 && self.fits(width(part) + 2));
            match (stays, number) {
                (true, 0) => {}
                (true, _) => self.text.push(' '),
                (false, _) => self.next_line(indent + deeper),
            }
            self.write(part, indent + deeper, 1);
            if number + 1 < parts.len() {
                self.text.push(',');
            }
        }
        if !makes_a_map {
            self.next_line(indent);
        }
    }

    fn flat(&mut self, items: &[Item<'_>]) {
        for item in items {
            match item {
                Item::Text(text) => self.text.push_str(text),
                Item::Separator(separator) => self.text.push_str(separator.text()),
                Item::Brackets(opens, inner, closes, _) => {
                    self.text.push(*opens);
                    self.flat(inner);
                    self.text.push(*closes);
                }
            }
        }
    }

    fn fits(&self, width: usize) -> bool {
        let line = self.text.get(self.line..).unwrap_or_default();
        line.chars().count() + width <= WIDTH
    }

    fn next_line(&mut self, indent: usize) {
        self.text.push('\n');
        self.line = self.text.len();
        self.text.extend(std::iter::repeat_n(' ', indent));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(lines: &[&str]) -> String {
        lines.join("\n")
    }

    #[test]
    fn a_reader_finds_a_step_on_each_line() {
        let long = |name: &str| format!("variables.{name}{}", "x".repeat(45));
        let (a, b, c) = (long("a"), long("b"), long("c"));
        for (given, expected) in [
            ("(a ? b : c)".to_owned(), "a ? b : c".to_owned()),
            (
                format!("({a} || {b}) && {c} in [\"1\"]"),
                lines(&[
                    &format!("({a}"),
                    &format!("  || {b})"),
                    &format!("&& {c} in [\"1\"]"),
                ]),
            ),
            (
                format!("({a} ? {{}} : ({b} ? {{\"by\": dyn(1)}} : ({c} ? 1 : 2)))"),
                lines(&[
                    &format!("{a} ? {{}} :"),
                    &format!("{b} ? {{\"by\": dyn(1)}} :"),
                    &format!("{c} ? 1 :"),
                    "2",
                ]),
            ),
            (
                format!("{a} ? {b} : []"),
                lines(&[&format!("{a} ?"), &format!("  {b} : []")]),
            ),
            (
                format!("(has(x) ? [JSONPatch{{op: \"add\", path: {a}, value: {b}}}] : []) + {c}"),
                lines(&[
                    "(has(x) ?",
                    "    [JSONPatch{",
                    "      op: \"add\",",
                    &format!("      path: {a},"),
                    &format!("      value: {b}"),
                    "    }] : [])",
                    &format!("+ {c}"),
                ]),
            ),
            (
                format!("variables.containers.transformList(i, n, {a} || {b}).flatten()"),
                lines(&[
                    "variables.containers.transformList(i, n,",
                    &format!("  {a}"),
                    &format!("  || {b}"),
                    ").flatten()",
                ]),
            ),
            (
                format!("a.orValue([]).map(x, {a}).filter(x, x != {b}).sort()"),
                lines(&[
                    "a.orValue([])",
                    &format!("  .map(x, {a})"),
                    &format!("  .filter(x, x != {b}).sort()"),
                ]),
            ),
            (
                format!("variables.containers.transformList(i, n, {{\"a\": {a}, \"b\": {b}}})"),
                lines(&[
                    "variables.containers.transformList(i, n, {",
                    &format!("  \"a\": {a},"),
                    &format!("  \"b\": {b}"),
                    "})",
                ]),
            ),
            (
                format!("x in [\"{}\", \"b\", \"c\"]", "a".repeat(94)),
                lines(&[
                    "x in [",
                    &format!("  \"{}\",", "a".repeat(94)),
                    "  \"b\", \"c\"",
                    "]",
                ]),
            ),
        ] {
            assert_eq!(laid_out(&given), expected);
        }
    }

    #[test]
    fn a_literal_is_never_touched() {
        let literal = format!(r#""{} ? ( : [, \" && \\""#, "x".repeat(99));
        let given = format!("({literal} + '( \" + ')");
        assert_eq!(laid_out(&given), format!("{literal}\n+ '( \" + '"));
    }

    #[test]
    fn brackets_and_choices_nest() {
        for (expression, expected) in [
            ("a", 1),
            ("(a)", 2),
            ("[(a), (b), {c: (d)}]", 4),
            ("a ? b : (c)", 3),
            ("a ? b : c ? d : (e)", 4),
            ("f(a ? b : (c), (d))", 4),
            ("\"((((\" + a", 1),
            ("(a ? b : (c ? d : (e ? f : g)))", 7),
        ] {
            assert_eq!(nesting(expression), expected, "{expression}");
        }
    }

    fn expressions() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            "[a-z]{1,40}",
            Just(r#"" ? (\" || ""#.to_owned()),
            Just("variables.containers".to_owned()),
            Just("[]".to_owned()),
        ];
        leaf.prop_recursive(6, 64, 4, |inner| {
            let two = (inner.clone(), inner.clone());
            prop_oneof![
                (two.clone(), inner.clone()).prop_map(|((a, b), c)| format!("({a} ? {b} : {c})")),
                two.clone().prop_map(|(a, b)| format!("({a} || {b})")),
                two.clone().prop_map(|(a, b)| format!("({a} && !{b})")),
                two.prop_map(|(a, b)| format!("{a} + {b}")),
                inner
                    .clone()
                    .prop_map(|a| format!("list.map(x, {a}).flatten()")),
                inner.prop_map(|a| format!("[JSONPatch{{op: \"add\", value: {a}}}]")),
            ]
        })
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_a_block_can_show_it(expression in expressions()) {
            let page = laid_out(&expression);
            let words = |text: &str| text.replace([' ', '\n', '(', ')'], "");
            prop_assert_eq!(words(&page), words(&expression));
            prop_assert!(page.lines().all(|line| !line.is_empty() && !line.ends_with(' ')), "{}", page);
            prop_assert_eq!(&laid_out(&expression), &page);
        }
    }
}
