//! A map that knows which of its entries may have changed: what follows from a change is looked at there alone, so that
//! an input costs as much as it changes, however many agents there are.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::ops::Deref;

/// Read it as the map that it is; every way to change an entry marks it.
#[derive(Clone, Debug)]
pub struct Watched<K, V> {
    all: BTreeMap<K, V>,
    touched: BTreeSet<K>,
}

impl<K, V> Default for Watched<K, V> {
    fn default() -> Self {
        Self { all: BTreeMap::new(), touched: BTreeSet::new() }
    }
}

impl<K: Ord + Clone, V> Watched<K, V> {
    /// Adds or replaces an entry.
    pub fn insert(&mut self, key: K, value: V) {
        self.touched.insert(key.clone());
        self.all.insert(key, value);
    }

    /// An entry that may be about to change.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let value = self.all.get_mut(key)?;
        self.touched.insert(key.clone());
        Some(value)
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.touched.insert(key.clone());
        self.all.remove(key)
    }

    /// Marks an entry that something else of has changed.
    pub fn touch(&mut self, key: K) {
        self.touched.insert(key);
    }

    /// Marks them all.
    pub fn touch_all(&mut self) {
        self.touched.extend(self.all.keys().cloned());
    }

    /// The marked keys, those of entries that were taken out included.
    pub const fn touched(&self) -> &BTreeSet<K> {
        &self.touched
    }

    /// Takes the marks away, and tells them.
    pub fn take_touched(&mut self) -> BTreeSet<K> {
        std::mem::take(&mut self.touched)
    }
}

impl<K, V> Deref for Watched<K, V> {
    type Target = BTreeMap<K, V>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl<'a, K, V> IntoIterator for &'a Watched<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = btree_map::Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_change_an_entry_marks_it_and_a_look_does_not() {
        let mut map = Watched::default();
        map.insert(1, 'a');
        map.insert(2, 'b');
        assert_eq!(map.take_touched(), [1, 2].into());
        assert_eq!((map.get(&1), map.len()), (Some(&'a'), 2));
        assert!(map.touched().is_empty());
        *map.get_mut(&2).unwrap() = 'c';
        assert!(map.get_mut(&3).is_none());
        map.remove(&1);
        assert_eq!(map.take_touched(), [1, 2].into());
        map.touch_all();
        map.touch(9);
        assert_eq!(map.take_touched(), [2, 9].into());
    }
}
