//! Which crates and which modules of its own crate a file names: in `use`, in any path, and inside macros.

use proc_macro2::{Spacing, TokenStream, TokenTree};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

/// A path that a file names, cut after its second part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Import {
    /// A crate, or `crate` for the file's own.
    pub(super) root: String,
    /// The part after it: of the own crate, a module.
    pub(super) rest: Option<String>,
    /// Where, from 1.
    pub(super) line: usize,
    /// Compiled for tests only, as far as the file itself says.
    pub(super) in_test: bool,
}

/// The imports of a file that holds that module, `self` and `super` resolved.
pub(super) fn collect_imports(text: &str, module: &[String]) -> syn::Result<Vec<Import>> {
    let file = syn::parse_file(text)?;
    let mut collector = Collector { module: module.to_vec(), in_test: false, imports: Vec::new() };
    collector.visit_file(&file);
    Ok(collector.imports)
}

struct Collector {
    module: Vec<String>,
    in_test: bool,
    imports: Vec<Import>,
}

impl Collector {
    /// Notes whether what has these attributes is for tests only; returns what held outside of it.
    fn enter(&mut self, attributes: &[syn::Attribute]) -> bool {
        let is_test = |attribute: &syn::Attribute| {
            let cfg = attribute.meta.require_list().ok().filter(|list| list.path.is_ident("cfg"));
            cfg.is_some_and(|list| list.tokens.to_string() == "test")
        };
        let outside = self.in_test;
        self.in_test |= attributes.iter().any(is_test);
        outside
    }

    fn add(&mut self, parts: &[String], line: usize) {
        let Some((first, others)) = parts.split_first() else { return };
        let (root, rest) = match first.as_str() {
            "self" | "super" => {
                let ups = parts.iter().filter(|part| *part == "super").count();
                let kept = self.module.len().saturating_sub(ups);
                let named = parts.iter().filter(|part| !matches!(part.as_str(), "self" | "super"));
                ("crate".into(), self.module[..kept].iter().chain(named).next().cloned())
            }
            _ => (first.clone(), others.first().cloned()),
        };
        self.imports.push(Import { root, rest, line, in_test: self.in_test });
    }

    /// Every name that a `use` brings in, with what stands before it.
    fn add_use(&mut self, prefix: &[String], tree: &syn::UseTree) {
        let line = tree.span().start().line;
        let with = |name: &syn::Ident| {
            let mut parts = prefix.to_vec();
            parts.push(name.to_string());
            parts
        };
        match tree {
            syn::UseTree::Path(path) => self.add_use(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.add(&with(&name.ident), line),
            syn::UseTree::Rename(rename) => self.add(&with(&rename.ident), line),
            syn::UseTree::Glob(_) => self.add(prefix, line),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_use(prefix, tree)),
        }
    }

    /// Macros take anything; what looks like a path in one is taken for a path.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut parts: Vec<String> = Vec::new();
        let mut line = 0;
        // Colons seen since the last name: two of them join names.
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.add_path(&parts, line);
                        parts.clear();
                    }
                    if parts.is_empty() {
                        line = ident.span().start().line;
                    }
                    parts.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct)
                    if punct.as_char() == ':' && (colons == 1 || punct.spacing() == Spacing::Joint) =>
                {
                    colons += 1;
                }
                other => {
                    self.add_path(&parts, line);
                    parts.clear();
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.add_tokens(group.stream());
                    }
                }
            }
        }
        self.add_path(&parts, line);
    }

    /// A name alone is a variable or a type, never a crate.
    fn add_path(&mut self, parts: &[String], line: usize) {
        if parts.len() > 1 {
            self.add(parts, line);
        }
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let outside = self.enter(&item.attrs);
        self.add_use(&[], &item.tree);
        self.in_test = outside;
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        self.add(&[item.ident.to_string()], item.span().start().line);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let outside = self.enter(&item.attrs);
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
        self.in_test = outside;
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.add_path(&parts, path.span().start().line);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.add_tokens(item.tokens.clone());
        visit::visit_macro(self, item);
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        self.add_tokens(list.tokens.clone());
        visit::visit_meta_list(self, list);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imports(text: &str) -> Vec<(String, Option<String>)> {
        let module = ["compile".to_string(), "plan".to_string()];
        let found = collect_imports(text, &module).unwrap();
        found.into_iter().map(|import| (import.root, import.rest)).collect()
    }

    fn import(root: &str, rest: &str) -> (String, Option<String>) {
        (root.into(), Some(rest.into()))
    }

    #[test]
    fn own_modules_are_named_from_the_root() {
        assert_eq!(imports("use self::inner::X;"), [import("crate", "compile")]);
        assert_eq!(imports("use super::service::X;"), [import("crate", "compile")]);
        assert_eq!(imports("use super::super::state::X;"), [import("crate", "state")]);
        assert_eq!(imports("use super::super::*;"), [("crate".into(), None)]);
        assert_eq!(imports("mod a { use super::super::super::tables; }"), [import("crate", "tables")]);
    }

    #[test]
    fn a_group_is_several_imports() {
        let found = imports("use {std::fmt, crate::{source::{Event, Node}, state}};");
        let expected = [
            import("std", "fmt"),
            import("crate", "source"),
            import("crate", "source"),
            import("crate", "state"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn tests_are_told_from_the_rest() {
        let text = "#[cfg(test)] mod tests { use a::b; mod deep { use a::c; } } #[cfg(test)] use a::d; use a::e;\n\
                    #[cfg(not(test))] mod m { use a::f; }";
        let found = collect_imports(text, &[]).unwrap();
        let found: Vec<_> =
            found.iter().map(|import| (import.rest.as_deref().unwrap(), import.in_test)).collect();
        assert_eq!(found, [("b", true), ("c", true), ("d", true), ("e", false), ("f", false)]);
    }

    #[test]
    fn macros_are_read_like_code() {
        let found = imports("fn f() { info!(port = x.y, \"{}\", [crate::kernel::n(), a ? b : ::aya::c]); }");
        assert!(found.contains(&import("crate", "kernel")), "{found:?}");
        assert!(found.contains(&import("aya", "c")), "{found:?}");
        assert!(!found.iter().any(|(root, _)| root == "x" || root == "a"), "{found:?}");
    }
}
