//! What a person sees: tables, with colours where the terminal has them and `NO_COLOR` is not set.

use std::io::IsTerminal as _;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table};
use owo_colors::OwoColorize as _;

use super::attempt::{Attempted, FORMS};

/// <https://no-color.org>: any value but the empty one.
fn has_colours() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// One chapter of the demo.
pub(super) fn print(title: &str, rows: &[Attempted]) {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED.with_rounded_corners());
    table.set_content_arrangement(ContentArrangement::Dynamic);
    if !has_colours() {
        table.force_no_tty();
    }
    let head = ["", "from", "to", "socket", "wanted", "IPv4", "IPv6"];
    table.set_header(head.map(|name| Cell::new(name).add_attribute(Attribute::Bold)));
    for row in rows {
        let mut cells = vec![
            mark(row.is_as_expected()),
            Cell::new(&row.from),
            Cell::new(&row.to),
            Cell::new(row.how),
            Cell::new(&row.wanted),
        ];
        cells.extend(FORMS.iter().filter_map(|form| row.saw.get(form)).map(|(what, as_expected)| {
            Cell::new(what).fg(if *as_expected { Color::Reset } else { Color::Red })
        }));
        table.add_row(cells);
    }
    println!("\n{title}\n{table}");
}

fn mark(as_expected: bool) -> Cell {
    if as_expected { Cell::new("ok").fg(Color::Green) } else { Cell::new("NO").fg(Color::Red) }
}

/// The last line.
pub(super) fn conclude(as_expected: bool) {
    let text = if as_expected {
        "All was as expected; nothing is left behind."
    } else {
        "Not all was as expected: see the lines marked NO."
    };
    match (has_colours(), as_expected) {
        (false, _) => println!("\n{text}"),
        (true, true) => println!("\n{}", text.green()),
        (true, false) => println!("\n{}", text.red()),
    }
}
