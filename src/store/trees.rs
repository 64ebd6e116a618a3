//! Which pages of a database belong together, found without its schema.
//!
//! A page's place in its tree is written down twice: its parent lists it as a child, between row ids that
//! must fit, and the pointer map names its parent. So a tree is found whole although its root, an inner
//! page or a page of the map is lost. Free pages, which still hold what they held, are left out. Keeps a
//! few bytes for each page.

use std::collections::BTreeMap;

use super::btree::{self, Kind, Page};
use super::image::Image;
use super::schema::ROOTS;

/// The trees of a database.
pub(super) struct Trees {
    /// Pages that hold rows, by their root, in the order of their first rows.
    leaves: BTreeMap<u32, Vec<u32>>,
}

/// What is known of one page.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    kind: Option<Kind>,
    /// Row id of its first cell.
    first: i64,
    /// What the pointer map says of it.
    mapped: Mapped,
    /// Its parent as pages that fit list it; 0: none does.
    listed: u32,
    /// How many do; the parent that the map names counts for all.
    listings: u8,
}

/// What the pointer map says of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mapped {
    /// Nothing of use.
    #[default]
    Unknown,
    /// It is not in use.
    Free,
    /// It has no parent.
    Root,
    /// It has this one.
    Child(u32),
}

impl Trees {
    /// Finds them.
    pub(super) fn of(image: &Image) -> Trees {
        let mut known = vec![Known::default(); image.count as usize + 1];
        for number in (1..=image.count).filter(|number| !is_map(*number)) {
            let Some(page) = image.page(number) else { continue };
            if let Some(of) = known.get_mut(number as usize) {
                of.kind = btree::kind(number, &page);
                of.first = first(number, &page, of.kind);
            }
        }
        for number in (1..=image.count).filter(|number| is_map(*number)) {
            if let Some(page) = image.page(number) {
                read_map(number, &page, &mut known);
            }
        }
        for number in 1..=image.count {
            let inner = known.get(number as usize).copied().unwrap_or_default();
            let Some(kind @ (Kind::Inner | Kind::KeyInner)) = inner.kind else { continue };
            if inner.mapped != Mapped::Free
                && let Some(page) = image.page(number)
            {
                list(number, &btree::children(number, &page, kind), kind, &mut known);
            }
        }
        Trees { leaves: leaves(&known) }
    }

    /// Pages with rows of each tree that is none of a table that is always there.
    pub(super) fn logs(&self) -> impl Iterator<Item = &Vec<u32>> {
        let logs = self.leaves.iter().filter(|(root, _)| **root > 1 && !ROOTS.contains(root));
        logs.map(|(_, pages)| pages)
    }

    /// Pages with rows of one tree.
    pub(super) fn of_root(&self, root: u32) -> &[u32] {
        self.leaves.get(&root).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Row id of the first cell of a table's page.
fn first(number: u32, page: &Page, kind: Option<Kind>) -> i64 {
    match kind {
        Some(kind @ Kind::Leaf) => btree::cells(number, page, kind).next().map_or(0, |cell| cell.id),
        Some(kind @ Kind::Inner) => btree::children(number, page, kind).first().map_or(0, |child| child.1),
        _ => 0,
    }
}

/// Whether a page is one of the pointer map.
fn is_map(number: u32) -> bool {
    number >= 2 && (number - 2).is_multiple_of(MAPPED + 1)
}

/// What a page of the map says of the pages behind it.
fn read_map(number: u32, page: &Page, known: &mut [Known]) {
    for (entry, of) in page.as_chunks::<5>().0.iter().zip(known.iter_mut().skip(number as usize + 1)) {
        let [kind, parent @ ..] = *entry;
        of.mapped = match (kind, u32::from_be_bytes(parent)) {
            (1, 0) => Mapped::Root,
            (2, 0) => Mapped::Free,
            (5, parent) if parent > 0 => Mapped::Child(parent),
            _ => Mapped::Unknown,
        };
    }
}

/// Notes an inner page's children, as far as they fit it.
fn list(number: u32, children: &[(u32, i64)], kind: Kind, known: &mut [Known]) {
    let mut above = i64::MIN;
    for (child, through) in children {
        let fits = |of: &Known| match kind {
            Kind::Inner => {
                matches!(of.kind, Some(Kind::Leaf | Kind::Inner)) && of.first > above && of.first <= *through
            }
            _ => matches!(of.kind, Some(Kind::KeyLeaf | Kind::KeyInner)),
        };
        if let Some(of) = known.get_mut(*child as usize)
            && *child != number
            && fits(of)
        {
            of.listings =
                if of.mapped == Mapped::Child(number) { u8::MAX } else { of.listings.saturating_add(1) };
            if of.listed == 0 || of.listings == u8::MAX {
                of.listed = number;
            }
        }
        above = *through;
    }
}

fn parent(of: &Known) -> Option<u32> {
    match (of.listings, of.mapped) {
        (1 | u8::MAX, _) => Some(of.listed),
        (_, Mapped::Child(parent)) => Some(parent),
        _ => None,
    }
}

fn leaves(known: &[Known]) -> BTreeMap<u32, Vec<u32>> {
    let mut leaves: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (number, of) in (0u32..).zip(known) {
        if of.mapped == Mapped::Free || !matches!(of.kind, Some(Kind::Leaf | Kind::KeyLeaf | Kind::KeyInner))
        {
            continue;
        }
        let mut root = number;
        for _ in 0..DEPTH_MAX {
            let above = known.get(root as usize).and_then(parent);
            root = above.unwrap_or(root);
        }
        leaves.entry(root).or_default().push(number);
    }
    for pages in leaves.values_mut() {
        pages.sort_by_key(|number| known.get(*number as usize).map_or(0, |of| of.first));
    }
    leaves
}

/// Pages that one page of the map tells of.
const MAPPED: u32 = 819;

/// A tree of 2^32 pages is not higher.
const DEPTH_MAX: u32 = 20;
