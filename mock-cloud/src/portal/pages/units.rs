//! The tree of organisational units.

use std::collections::{BTreeMap, HashSet};

use askama::Template;
use axum::extract::State;

use super::super::Portal;
use super::super::shell::{InTenant, PageResult, Shell, page};
use super::super::words::count;
use crate::limits::PORTAL_TREE_MAX;
use crate::store::{Ou, Search};

/// A unit in the order of a walk through the tree. The template opens and closes lists by the depths.
struct Node {
    ou: Ou,
    size: String,
    has_children: bool,
    /// Lists to close behind this node, as many as levels end here.
    closes: Vec<()>,
}

#[derive(Template)]
#[template(path = "units.html")]
struct UnitsPage {
    shell: Shell,
    nodes: Vec<Node>,
    cut: bool,
}

pub(in super::super) async fn show(State(portal): State<Portal>, seen: InTenant) -> PageResult {
    let search = Search { limit: PORTAL_TREE_MAX, ..Search::default() };
    let found = portal.cloud.store.ous(&seen.tenant.id, search).await?;
    let cut = found.next.is_some();
    page(&UnitsPage { shell: seen.shell(&portal, "units").await?, nodes: walk(found.items), cut })
}

/// Puts every unit under its parent. A unit whose parent is out of scope is a root; one in a circle of parents, which
/// no directory should have, is shown as a root too, so that nothing disappears.
fn walk(ous: Vec<Ou>) -> Vec<Node> {
    let known: HashSet<String> = ous.iter().map(|ou| ou.id.clone()).collect();
    let mut children: BTreeMap<Option<String>, Vec<Ou>> = BTreeMap::new();
    for ou in ous {
        let parent = ou.parent.clone().filter(|parent| known.contains(parent) && *parent != ou.id);
        children.entry(parent).or_default().push(ou);
    }
    let mut nodes: Vec<(usize, Ou)> = Vec::new();
    place(&mut nodes, &mut children, None, 0);
    while let Some(parent) = children.keys().next().cloned() {
        place(&mut nodes, &mut children, parent, 0);
    }
    let depths: Vec<usize> = nodes.iter().map(|(depth, _)| *depth).collect();
    nodes
        .into_iter()
        .enumerate()
        .map(|(n, (depth, ou))| {
            let next = depths.get(n + 1).copied().unwrap_or(0);
            Node {
                size: count(ou.users),
                ou,
                has_children: next > depth,
                closes: vec![(); depth.saturating_sub(next)],
            }
        })
        .collect()
}

/// Depth first with a stack of its own: the depth of a directory is not ours to choose.
fn place(
    nodes: &mut Vec<(usize, Ou)>,
    children: &mut BTreeMap<Option<String>, Vec<Ou>>,
    root: Option<String>,
    depth: usize,
) {
    let first = children.remove(&root).unwrap_or_default();
    let mut stack: Vec<(usize, Ou)> = first.into_iter().rev().map(|ou| (depth, ou)).collect();
    while let Some((depth, ou)) = stack.pop() {
        let below = children.remove(&Some(ou.id.clone())).unwrap_or_default();
        stack.extend(below.into_iter().rev().map(|child| (depth + 1, child)));
        nodes.push((depth, ou));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ou(id: &str, parent: Option<&str>) -> Ou {
        let parent = parent.map(str::to_owned);
        Ou { id: id.into(), source: String::new(), name: id.into(), dn: String::new(), parent, users: 0 }
    }

    #[test]
    fn every_unit_is_shown_once_even_in_a_circle() {
        let nodes = walk(vec![
            ou("b", Some("a")),
            ou("a", None),
            ou("c", Some("b")),
            ou("d", None),
            ou("e", Some("gone")),
            ou("x", Some("y")),
            ou("y", Some("x")),
            ou("self", Some("self")),
        ]);
        let mut ids: Vec<&str> = nodes.iter().map(|node| node.ou.id.as_str()).collect();
        assert_eq!(&ids[..3], ["a", "b", "c"], "depth first");
        ids.sort_unstable();
        assert_eq!(ids, ["a", "b", "c", "d", "e", "self", "x", "y"]);
        let opened = nodes.iter().filter(|node| node.has_children).count();
        let closed: usize = nodes.iter().map(|node| node.closes.len()).sum();
        assert_eq!(opened, closed, "the lists nest");
    }
}
