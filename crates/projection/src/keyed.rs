//! A list whose items are found by a key.
//!
//! **Invariant:** it reads and writes as a plain list, in the order of insertion; the index is made
//! again whenever it is read.

use std::collections::HashMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::read::growth;

/// What an item of a [`KeyedList`] is found by.
pub trait Keyed {
    /// The key; it never changes.
    fn key(&self) -> &str;
}

/// A list of at most `CAPACITY` items, each found by its key.
#[derive(Debug, Clone)]
pub struct KeyedList<T, const CAPACITY: usize> {
    items: Vec<T>,
    index: HashMap<String, usize>,
}

impl<T: Keyed, const CAPACITY: usize> KeyedList<T, CAPACITY> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// In the order of insertion.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.items.iter()
    }

    /// In the order of insertion, to change anything but the key.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, T> {
        self.items.iter_mut()
    }

    /// The item with this key.
    pub fn get(&self, key: &str) -> Option<&T> {
        self.items.get(*self.index.get(key)?)
    }

    /// The item with this key, to change anything but the key.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut T> {
        self.items.get_mut(*self.index.get(key)?)
    }

    /// The item with this key, made by `new` if there is none; `None` when the list is full.
    pub fn entry(&mut self, key: &str, new: impl FnOnce() -> T) -> Option<&mut T> {
        if let Some(at) = self.index.get(key) {
            return self.items.get_mut(*at);
        }
        if self.items.len() >= CAPACITY {
            return None;
        }
        self.index.insert(key.to_owned(), self.items.len());
        if self.items.len() == self.items.capacity() {
            self.items.reserve_exact(growth(self.items.len()));
        }
        self.items.push(new());
        self.items.last_mut()
    }
}

impl<T, const CAPACITY: usize> Default for KeyedList<T, CAPACITY> {
    fn default() -> Self {
        Self { items: Vec::new(), index: HashMap::new() }
    }
}

impl<T: PartialEq, const CAPACITY: usize> PartialEq for KeyedList<T, CAPACITY> {
    fn eq(&self, other: &Self) -> bool {
        self.items == other.items
    }
}

impl<T: Serialize, const CAPACITY: usize> Serialize for KeyedList<T, CAPACITY> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.items.serialize(serializer)
    }
}

impl<'de, T: Keyed + Deserialize<'de>, const CAPACITY: usize> Deserialize<'de>
    for KeyedList<T, CAPACITY>
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = Vec::<T>::deserialize(deserializer)?;
        let index =
            items.iter().enumerate().map(|(at, item)| (item.key().to_owned(), at)).collect();
        Ok(Self { items, index })
    }
}
