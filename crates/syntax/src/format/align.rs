//! The last stage: cells to lines. Columns of cells are lined up over neighbouring lines (elastic tab stops), blanks at
//! line ends go, and text that must stay as it is stays.
//!
//! A line is a row of cells; all but its last belong to columns. Neighbouring lines that have the same column share its
//! width: that of the widest cell and one blank. A leading empty cell is indentation and prints as tabs.

use crate::limits::MAX_SOURCE_BYTES;

/// Cells at the beginning of a line that are empty are padded to a multiple of this, with tabs.
const TAB_WIDTH: usize = 8;

/// The blanks between the widest cell of a column and the next column.
const PADDING: u32 = 1;

/// Collects text, cells and lines, and lays them out.
pub(super) struct Aligner {
    /// What is laid out.
    out: String,
    /// Up to where the current line of `out` must not be trimmed.
    out_protected: usize,
    /// Text of the lines that wait for their column widths.
    text: String,
    cells: Vec<Cell>,
    /// Where each waiting line ends, as an index into `cells`.
    line_ends: Vec<usize>,
    /// The column blocks that waiting cells refer to.
    blocks: Vec<ColumnBlock>,
    /// For each column that the previous line had, its block.
    open: Vec<u32>,
    /// Ends of protected text and the cells in which they are, in order.
    protected: Vec<(usize, usize)>,
    /// Width of the cell that is being written.
    width: u32,
    /// Bytes taken in since the beginning.
    taken: usize,
    overflow: bool,
}

/// The text between two cell ends; it begins where the previous cell ends.
struct Cell {
    end: u32,
    /// In characters.
    width: u32,
    /// Whether it was ended by a tab that counts even when the whole column is empty.
    hard: bool,
    block: u32,
}

/// Neighbouring lines that all have a certain column.
struct ColumnBlock {
    width: u32,
    /// Whether all its cells are empty and none has to stay.
    empty: bool,
}

impl Aligner {
    pub(super) fn new(expected_bytes: usize) -> Self {
        Self {
            out: String::with_capacity(expected_bytes),
            out_protected: 0,
            text: String::new(),
            cells: Vec::new(),
            line_ends: Vec::new(),
            blocks: Vec::new(),
            open: Vec::new(),
            protected: Vec::new(),
            width: 0,
            taken: 0,
            overflow: false,
        }
    }

    /// Adds text that has neither tabs nor line ends; its blanks may be trimmed.
    pub(super) fn text(&mut self, text: &str) {
        self.taken += text.len();
        self.text.push_str(text);
        self.width += width(text);
    }

    /// Adds text that is kept to the byte, whatever it contains. Line ends in it end no line.
    pub(super) fn protected(&mut self, text: &str) {
        self.text(text);
        self.protected.push((self.cells.len(), self.text.len()));
    }

    /// Adds a single blank.
    pub(super) fn blank(&mut self) {
        self.text(" ");
    }

    /// Ends the cell. A column of empty cells vanishes unless one of them is `hard`.
    pub(super) fn end_cell(&mut self, hard: bool) {
        self.taken += 1;
        if self.taken > MAX_SOURCE_BYTES {
            // Nothing more will come of this text; keep the memory it takes within bounds.
            self.overflow = true;
            return;
        }
        let end = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        self.cells.push(Cell { end, width: self.width, hard, block: 0 });
        self.width = 0;
    }

    /// Ends the cell and the line.
    pub(super) fn end_line(&mut self) {
        self.end_cell(false);
        self.assign_blocks();
        if self.open.is_empty() {
            // A line of one cell touches no column: whatever came before it is decided.
            self.lay_out();
        }
    }

    /// Ends the cell, the line, and all columns.
    pub(super) fn end_section(&mut self) {
        self.end_cell(false);
        self.assign_blocks();
        self.lay_out();
    }

    /// Lays out what is left. `None` when the result is larger than a source may be.
    pub(super) fn finish(mut self) -> Option<String> {
        self.end_section();
        // The last line ends as every line does, and an empty text is one empty line.
        let fits = !self.overflow && self.taken <= MAX_SOURCE_BYTES && self.out.len() <= MAX_SOURCE_BYTES;
        fits.then_some(self.out)
    }

    /// Finds the column blocks of the line that has just ended.
    fn assign_blocks(&mut self) {
        let start = self.line_ends.last().copied().unwrap_or(0);
        let line = &mut self.cells[start..];
        let columns = line.len().saturating_sub(1);
        self.open.truncate(columns);
        for (column, cell) in line.iter_mut().take(columns).enumerate() {
            let wanted = cell.width + PADDING;
            let empty = cell.width == 0 && !cell.hard;
            if let Some(&open) = self.open.get(column) {
                cell.block = open;
                let block = &mut self.blocks[open as usize];
                block.width = block.width.max(wanted);
                block.empty &= empty;
            } else {
                cell.block = u32::try_from(self.blocks.len()).unwrap_or(u32::MAX);
                self.open.push(cell.block);
                self.blocks.push(ColumnBlock { width: wanted, empty });
            }
        }
        self.line_ends.push(self.cells.len());
    }

    /// Writes all waiting lines.
    fn lay_out(&mut self) {
        let mut protected = self.protected.iter().peekable();
        let mut start = 0;
        let mut first = 0;
        for &line_end in &self.line_ends {
            let mut indenting = true;
            for (index, cell) in (first..).zip(&self.cells[first..line_end]) {
                let end = cell.end as usize;
                self.out.push_str(&self.text[start..end]);
                while let Some(&(_, kept)) = protected.next_if(|&&(inside, _)| inside == index) {
                    self.out_protected = self.out.len() - (end - kept);
                }
                let empty = start == end;
                start = end;
                indenting &= empty;
                if index + 1 == line_end {
                    break;
                }
                let block = &self.blocks[cell.block as usize];
                let width = if block.empty { 0 } else { block.width };
                let (pad, count) = if indenting {
                    ("\t", (width as usize).div_ceil(TAB_WIDTH))
                } else {
                    (" ", (width - cell.width) as usize)
                };
                if self.out.len() + count > MAX_SOURCE_BYTES {
                    self.overflow = true;
                    continue;
                }
                self.out.extend(std::iter::repeat_n(pad, count));
            }
            let line = self.out.trim_end_matches([' ', '\t']).len();
            self.out.truncate(line.max(self.out_protected));
            self.out.push('\n');
            self.out_protected = self.out.len();
            first = line_end;
        }
        self.text.clear();
        self.cells.clear();
        self.line_ends.clear();
        self.blocks.clear();
        self.open.clear();
        self.protected.clear();
    }
}

/// Characters of a text.
fn width(text: &str) -> u32 {
    u32::try_from(text.chars().count()).unwrap_or(u32::MAX)
}
