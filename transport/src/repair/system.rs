//! The linear equations between symbols that are missing, kept solved as far as they can be.
//!
//! Every row is one equation: the sum of its unknowns, each times its coefficient, is its data. The rows are
//! always in reduced echelon form, with the unknowns in the order of age: a row's *pivot* is its oldest
//! unknown, has coefficient 1, and is in no other row. Three things follow. An unknown that is determined
//! stands alone in a row, so it is seen at once. The oldest unknowns can be forgotten by dropping the rows
//! whose pivots they are: no other row mentions them, and nothing known of the rest is lost. And every
//! equation counts for the oldest frame that it can help.

use super::code::WINDOW_SYMBOLS_MAX;
use super::field;

/// The most unknowns, and so the most rows: two full windows. What is missing normally is less than ten.
pub(super) const UNKNOWNS_MAX: usize = 2 * WINDOW_SYMBOLS_MAX;

/// A missing symbol: frame and index. Ordered by age.
pub(super) type Unknown = (u64, u16);

/// Equations of which one contradicts the others: somebody lied.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Inconsistent;

#[derive(Default, Debug)]
pub(super) struct System {
    /// The unknown of each column, where one is in use. Never longer than [`UNKNOWNS_MAX`].
    columns: Vec<Option<Unknown>>,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    coefficients: [u8; UNKNOWNS_MAX],
    data: Vec<u8>,
    /// A column of `columns`, in use.
    pivot: usize,
}

impl System {
    /// Is there room for an equation with these unknowns?
    pub(super) fn has_room(&self, unknowns: impl Iterator<Item = Unknown>) -> bool {
        let used = self.columns.iter().flatten().count();
        used + unknowns.filter(|&unknown| self.column(unknown).is_none()).count() <= UNKNOWNS_MAX
    }

    /// Adds an equation for which there [is room](Self::has_room). Says whether it was news.
    pub(super) fn add(
        &mut self,
        unknowns: impl Iterator<Item = (Unknown, u8)>,
        data: Vec<u8>,
    ) -> Result<bool, Inconsistent> {
        let mut row = Row { coefficients: [0; UNKNOWNS_MAX], data, pivot: 0 };
        for (unknown, coefficient) in unknowns {
            let column = self.column(unknown).unwrap_or_else(|| self.open_column(unknown));
            row.coefficients[column] = coefficient;
        }
        self.insert(row)
    }

    /// Takes the value of a symbol that came another way.
    pub(super) fn learn(&mut self, unknown: Unknown, value: &[u8]) -> Result<(), Inconsistent> {
        let Some(column) = self.column(unknown) else { return Ok(()) };
        for row in &mut self.rows {
            let coefficient = std::mem::take(&mut row.coefficients[column]);
            if coefficient != 0 {
                add_scaled(&mut row.data, value, coefficient);
            }
        }
        let bereft = self.rows.iter().position(|row| row.pivot == column);
        match bereft.map(|at| self.rows.swap_remove(at)) {
            Some(row) => self.insert(row).map(drop),
            None => {
                self.close_columns();
                Ok(())
            }
        }
    }

    /// Takes out the oldest unknown that is determined, and its value.
    pub(super) fn take_solved(&mut self) -> Option<(Unknown, Vec<u8>)> {
        let is_alone = |row: &Row| row.coefficients.iter().filter(|&&c| c != 0).count() == 1;
        let solved = self.rows.iter().enumerate().filter(|(_, row)| is_alone(row));
        let (at, _) = solved.min_by_key(|(_, row)| self.columns[row.pivot])?;
        let row = self.rows.swap_remove(at);
        Some((self.columns[row.pivot].take()?, row.data))
    }

    /// Forgets all unknowns of frames before `frame`.
    pub(super) fn forget_before(&mut self, frame: u64) {
        let columns = &self.columns;
        self.rows.retain(|row| columns[row.pivot].is_some_and(|(of, _)| of >= frame));
        self.close_columns();
    }

    /// The oldest unknown of every equation.
    pub(super) fn pivots(&self) -> impl Iterator<Item = Unknown> + '_ {
        self.rows.iter().filter_map(|row| self.columns[row.pivot])
    }

    /// Checks what the form of the rows promises, and that all unknowns are unknown.
    #[cfg(test)]
    pub(super) fn assert_sound(&self, is_missing: impl Fn(Unknown) -> bool) {
        assert!(self.columns.len() <= UNKNOWNS_MAX && self.rows.len() <= UNKNOWNS_MAX);
        assert!(self.columns.iter().flatten().all(|&unknown| is_missing(unknown)));
        for (at, row) in self.rows.iter().enumerate() {
            assert_eq!(row.coefficients[row.pivot], 1);
            let is_term = |&column: &usize| row.coefficients[column] != 0;
            assert!((0..UNKNOWNS_MAX).filter(is_term).all(|column| self.columns[column].is_some()));
            let oldest = (0..UNKNOWNS_MAX).filter(is_term).min_by_key(|&column| self.columns[column]);
            assert_eq!(oldest, Some(row.pivot));
            let mut others = self.rows.iter().enumerate().filter(|&(other, _)| other != at);
            assert!(others.all(|(_, other)| other.coefficients[row.pivot] == 0));
        }
        for column in (0..self.columns.len()).filter(|&column| self.columns[column].is_some()) {
            assert!(self.rows.iter().any(|row| row.coefficients[column] != 0));
        }
    }

    fn column(&self, unknown: Unknown) -> Option<usize> {
        self.columns.iter().position(|&column| column == Some(unknown))
    }

    fn open_column(&mut self, unknown: Unknown) -> usize {
        let free = self.columns.iter().position(Option::is_none).unwrap_or_else(|| {
            self.columns.push(None);
            self.columns.len() - 1
        });
        self.columns[free] = Some(unknown);
        free
    }

    /// Closes the columns that no row mentions any more.
    fn close_columns(&mut self) {
        let mut mentioned = [0; UNKNOWNS_MAX];
        for row in &self.rows {
            mentioned.iter_mut().zip(row.coefficients).for_each(|(sum, coefficient)| *sum |= coefficient);
        }
        for (column, mentioned) in self.columns.iter_mut().zip(mentioned) {
            if mentioned == 0 {
                *column = None;
            }
        }
    }

    fn insert(&mut self, mut new: Row) -> Result<bool, Inconsistent> {
        for row in &self.rows {
            new.subtract(row, new.coefficients[row.pivot]);
        }
        let pivot = (0..self.columns.len())
            .filter(|&column| new.coefficients[column] != 0)
            .min_by_key(|&column| self.columns[column]);
        let Some(pivot) = pivot else {
            self.close_columns();
            return if new.data.iter().all(|&byte| byte == 0) { Ok(false) } else { Err(Inconsistent) };
        };
        new.pivot = pivot;
        let scale = field::inverse(new.coefficients[pivot]);
        field::mul(&mut new.coefficients, scale);
        field::mul(&mut new.data, scale);
        for row in &mut self.rows {
            row.subtract(&new, row.coefficients[pivot]);
        }
        self.rows.push(new);
        self.close_columns();
        Ok(true)
    }
}

impl Row {
    /// Takes away `factor` times `other`; in this field that is the same as adding it.
    fn subtract(&mut self, other: &Row, factor: u8) {
        if factor != 0 {
            field::mul_add(&mut self.coefficients, &other.coefficients, factor);
            add_scaled(&mut self.data, &other.data, factor);
        }
    }
}

/// Adds `factor` times `source`, as if the shorter of the two went on with zeros.
fn add_scaled(sum: &mut Vec<u8>, source: &[u8], factor: u8) {
    if sum.len() < source.len() {
        sum.resize(source.len(), 0);
    }
    field::mul_add(&mut sum[..source.len()], source, factor);
}
