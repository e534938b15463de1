//! Puts an object's type information (BTF) into an order that follows from the sources alone.
//!
//! A type that is only pointed to is declared without its content (`BTF_KIND_FWD`). LLVM puts these declarations at the end,
//! in the order of its own memory (`FixupDerivedTypes` of BTFDebug.cpp is keyed by addresses), and so are their names in
//! the table of strings: two builds of the same sources may differ in nothing else. Called by [`crate::object`].
//!
//! Format: the kernel's Documentation/bpf/btf.rst.

use std::collections::HashMap;
use std::ops::Range;

use object::{Object as _, ObjectSection as _};

/// Why an object's type information cannot be put in order.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// It is no object.
    #[error("reading the object: {0}")]
    Object(#[from] object::Error),
    /// It is not what btf.rst says.
    #[error("section .BTF: {0}")]
    Malformed(&'static str),
}

/// `struct btf_header`, little endian.
const MAGIC: u16 = 0xeb9f;
const HEADER_LEN: usize = 24;
/// `struct btf_type`
const TYPE_LEN: usize = 12;

const NAME: usize = 0;
const INFO: usize = 4;
const SIZE_OR_TYPE: usize = 8;

const FWD: u32 = 7;

/// Puts the declarations of an object in the order of their names. An object without type information stays as it is.
///
/// # Errors
/// It is no object, or its type information is not understood. Then it is left as it was.
pub fn normalize(object: &mut [u8]) -> Result<(), BtfError> {
    let Some((start, len)) = object::File::parse(&*object)?
        .section_by_name(".BTF")
        .and_then(|section| section.file_range())
        .and_then(|(start, len)| Some((usize::try_from(start).ok()?, usize::try_from(len).ok()?)))
    else {
        return Ok(());
    };
    normalize_section(object.get_mut(start..start + len).ok_or(BtfError::Malformed("cut off"))?)
}

fn normalize_section(section: &mut [u8]) -> Result<(), BtfError> {
    let (types, strings) = parts(section)?;
    let [types, strings] =
        section.get_disjoint_mut([types, strings]).map_err(|_| BtfError::Malformed("parts overlap"))?;
    Layout::parse(types)?.sort_declarations(types, strings);
    Ok(())
}

/// Where the types and the strings are.
fn parts(section: &[u8]) -> Result<(Range<usize>, Range<usize>), BtfError> {
    if section.len() < HEADER_LEN || section[..2] != MAGIC.to_le_bytes() {
        return Err(BtfError::Malformed("no header"));
    }
    let body = number(section, 4);
    let part = |at: usize| {
        let start = body + number(section, at);
        let end = start + number(section, at + 4);
        if end > section.len() { Err(BtfError::Malformed("cut off")) } else { Ok(start..end) }
    };
    Ok((part(8)?, part(16)?))
}

/// Where things are among the types. The id of the first is 1.
struct Layout {
    /// Where each type begins.
    types: Vec<usize>,
    /// The ids of those that are declared without content, ascending.
    declared: Vec<u32>,
    /// Where an id stands, ascending.
    references: Vec<usize>,
    /// Where an offset into the strings stands.
    names: Vec<usize>,
}

impl Layout {
    fn parse(types: &[u8]) -> Result<Self, BtfError> {
        let mut layout =
            Self { types: Vec::new(), declared: Vec::new(), references: Vec::new(), names: Vec::new() };
        let (mut at, mut id) = (0, 1);
        while at < types.len() {
            if at + TYPE_LEN > types.len() {
                return Err(BtfError::Malformed("a type is cut off"));
            }
            let info = word(types, at + INFO);
            layout.types.push(at);
            layout.names.push(at + NAME);
            if kind(info) == FWD {
                layout.declared.push(id);
            }
            at = layout.parse_rest(at, info).ok_or(BtfError::Malformed("a kind that is not known"))?;
            id += 1;
        }
        if at == types.len() { Ok(layout) } else { Err(BtfError::Malformed("a type is cut off")) }
    }

    /// What follows the three words that all types begin with. Returns where the next type begins.
    fn parse_rest(&mut self, at: usize, info: u32) -> Option<usize> {
        let rest = at + TYPE_LEN;
        // PTR, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FUNC_PROTO, VAR, DECL_TAG, TYPE_TAG
        if matches!(kind(info), 2 | 8..=14 | 17 | 18) {
            self.references.push(at + SIZE_OR_TYPE);
        }
        // Of each element: its length, and where in it a name and an id are.
        let (len, name, reference) = match kind(info) {
            // FWD, FLOAT and what was above
            2 | 7..=12 | 16 | 18 => return Some(rest),
            // INT, VAR, DECL_TAG
            1 | 14 | 17 => return Some(rest + 4),
            // ARRAY
            3 => {
                self.references.extend([rest, rest + 4]);
                return Some(rest + 12);
            }
            // STRUCT, UNION
            4 | 5 => (12, Some(0), Some(4)),
            // ENUM
            6 => (8, Some(0), None),
            // FUNC_PROTO
            13 => (8, Some(0), Some(4)),
            // DATASEC
            15 => (12, None, Some(0)),
            // ENUM64
            19 => (12, Some(0), None),
            _ => return None,
        };
        let count = (info & 0xffff) as usize;
        for element in (0..count).map(|number| rest + number * len) {
            self.names.extend(name.map(|name| element + name));
            self.references.extend(reference.map(|reference| element + reference));
        }
        Some(rest + count * len)
    }

    fn sort_declarations(&self, types: &mut [u8], strings: &mut [u8]) {
        let record = |id: u32| self.types[id as usize - 1];
        let mut sorted = self.declared.clone();
        // Of the same name: in the order in which they are mentioned, which follows from the sources.
        sorted.sort_by_cached_key(|id| {
            let info = word(types, record(*id) + INFO);
            let mention = self.references.iter().position(|at| word(types, *at) == *id);
            (string(strings, number(types, record(*id) + NAME)).to_vec(), info, mention)
        });
        let records: Vec<[u8; TYPE_LEN]> = sorted.iter().map(|id| bytes(types, record(*id))).collect();
        let ids: HashMap<u32, u32> = sorted.into_iter().zip(self.declared.iter().copied()).collect();
        for at in &self.references {
            if let Some(id) = ids.get(&word(types, *at)) {
                types[*at..*at + 4].copy_from_slice(&id.to_le_bytes());
            }
        }
        for (id, bytes) in self.declared.iter().zip(records) {
            types[record(*id)..record(*id) + TYPE_LEN].copy_from_slice(&bytes);
        }
        self.sort_names(types, strings);
    }

    /// The names of the declarations stand at the end of the strings, since nothing is named after them: as far as they do,
    /// they get the declarations' order. Line information (`.BTF.ext`) was written before, and knows none of these.
    fn sort_names(&self, types: &mut [u8], strings: &mut [u8]) {
        let name = |id: &u32| number(types, self.types[*id as usize - 1] + NAME);
        let mut names: Vec<usize> = Vec::new();
        for name in self.declared.iter().map(name) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let mut start = strings.len();
        while let Some(last) = names.iter().find(|name| {
            let len = string(strings, **name).len();
            len > 0 && *name + len == start
        }) {
            start = *last;
        }
        names.retain(|name| *name >= start);
        let mut moved = HashMap::new();
        let mut tail = Vec::new();
        for name in names {
            moved.insert(name, start + tail.len());
            tail.extend_from_slice(string(strings, name));
        }
        strings[start..].copy_from_slice(&tail);
        for at in &self.names {
            if let Some(name) = moved.get(&number(types, *at)).and_then(|name| u32::try_from(*name).ok()) {
                types[*at..*at + 4].copy_from_slice(&name.to_le_bytes());
            }
        }
    }
}

const fn kind(info: u32) -> u32 {
    info >> 24 & 0x1f
}

fn bytes<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut copy = [0; N];
    copy.copy_from_slice(&bytes[at..at + N]);
    copy
}

fn word(from: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes(from, at))
}

fn number(from: &[u8], at: usize) -> usize {
    word(from, at) as usize
}

/// With the zero that ends it.
fn string(strings: &[u8], at: usize) -> &[u8] {
    let rest = strings.get(at..).unwrap_or_default();
    let len = rest.iter().position(|byte| *byte == 0).map_or(rest.len(), |zero| zero + 1);
    &rest[..len]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int(number: usize) -> u32 {
        number.try_into().unwrap()
    }

    /// A structure with a pointer to each of these, which are declared and named in this order.
    fn section(declared: &[&str], pointed_to: &[&str]) -> Vec<u8> {
        let mut strings = b"\0closure\0".to_vec();
        let names: Vec<u32> = declared
            .iter()
            .map(|name| {
                let at = int(strings.len());
                strings.extend_from_slice(name.as_bytes());
                strings.push(0);
                at
            })
            .collect();
        let mut words: Vec<u32> = Vec::new();
        let (first_pointer, first_declared) = (2, 2 + pointed_to.len());
        words.extend([1, 4 << 24 | int(pointed_to.len()), 8 * int(pointed_to.len())]);
        for number in 0..pointed_to.len() {
            words.extend([0, int(first_pointer + number), 64 * int(number)]);
        }
        for name in pointed_to {
            let number = declared.iter().position(|declared| declared == name).unwrap();
            words.extend([0, 2 << 24, int(first_declared + number)]);
        }
        for name in names {
            words.extend([name, FWD << 24, 0]);
        }
        let types: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        let mut section = MAGIC.to_le_bytes().to_vec();
        section.extend([1, 0]);
        for word in [HEADER_LEN, 0, types.len(), types.len(), strings.len()] {
            section.extend(int(word).to_le_bytes());
        }
        [section, types, strings].concat()
    }

    /// What each pointer of the structure leads to.
    fn targets(section: &[u8]) -> Vec<String> {
        let (types, strings) = parts(section).unwrap();
        let (types, strings) = (&section[types], &section[strings]);
        let layout = Layout::parse(types).unwrap();
        let pointers = layout.types.iter().filter(|at| kind(word(types, **at + INFO)) == 2);
        pointers
            .map(|at| {
                let target = layout.types[number(types, at + SIZE_OR_TYPE) - 1];
                let name = string(strings, number(types, target + NAME));
                String::from_utf8(name.to_vec()).unwrap()
            })
            .collect()
    }

    #[test]
    fn the_order_of_declarations_does_not_matter() {
        let pointed_to = ["Skb", "Sum", "Config", "Sum"];
        let expected = ["Skb\0", "Sum\0", "Config\0", "Sum\0"];
        let orders = [["Sum", "Skb", "Config"], ["Config", "Sum", "Skb"], ["Config", "Skb", "Sum"]];
        let sorted = orders.map(|order| {
            let mut section = section(&order, &pointed_to);
            assert_eq!(targets(&section), expected);
            normalize_section(&mut section).unwrap();
            assert_eq!(targets(&section), expected);
            section
        });
        assert_eq!(sorted[0], sorted[1]);
        assert_eq!(sorted[1], sorted[2]);
        // In the order of the names it was sorted before.
        assert_eq!(sorted[2], section(&orders[2], &pointed_to));
    }

    #[test]
    fn another_program_stays_another() {
        let [mut one, mut other] =
            [["Skb", "Sum"], ["Sum", "Skb"]].map(|pointed_to| section(&["Sum", "Skb"], &pointed_to));
        normalize_section(&mut one).unwrap();
        normalize_section(&mut other).unwrap();
        assert_ne!(one, other);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let good = section(&["Sum"], &["Sum"]);
        let mut short = good[..good.len() - 1].to_vec();
        assert_eq!(normalize_section(&mut short).unwrap_err().to_string(), "section .BTF: cut off");
        let mut foreign = good.clone();
        foreign[HEADER_LEN + 7] = 30;
        let error = normalize_section(&mut foreign).unwrap_err().to_string();
        assert_eq!(error, "section .BTF: a kind that is not known");
        assert!(normalize_section(&mut b"none".to_vec()).is_err());
        assert!(normalize(&mut b"no object".to_vec()).is_err());
    }
}
