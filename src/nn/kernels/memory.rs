//! Buffers for activations.
//!
//! A fresh buffer of 100 MB costs 27,000 page faults, a tenth of the time of the convolution that fills it.
//! So large buffers are kept when they are given back and handed out again, whoever asks: [`KeepLarge`] is the process's allocator.
//! They start on a cache line, because each vector that straddles two lines is two accesses, and sit on huge pages where the system has them.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Smaller requests go to the system's allocator, which keeps them by itself.
const LARGE: usize = 1 << 20;
/// Larger requests, too: zeroed ones cost nothing there until they are used, which a damaged file may claim without end.
const LARGEST: usize = 256 << 20;
/// Large blocks are multiples of this, a huge page, so that nearly equal requests share them.
const PAGE: usize = 2 << 20;
/// A cache line.
const LINE: usize = 64;
/// Blocks that are kept at most.
const SLOTS: usize = 64;
/// Bytes that are kept at most: the activations of a 3-D U-Net on a patch of 128³, each at most [`LARGEST`].
const KEPT: usize = 2 << 30;

/// A block that nobody uses.
#[derive(Clone, Copy)]
struct Block {
    start: usize,
    size: usize,
}

/// Blocks that were given back.
static SPARE: Mutex<[Block; SLOTS]> = Mutex::new([Block { start: 0, size: 0 }; SLOTS]);
/// Their bytes.
static BYTES: AtomicUsize = AtomicUsize::new(0);

/// An allocator that keeps large blocks for the next who asks, and passes everything else to the system's.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeepLarge;

/// The layout of a large block that serves `layout`; none if the request is not large.
fn large(layout: Layout) -> Option<Layout> {
    if !(LARGE..=LARGEST).contains(&layout.size()) || layout.align() > LINE {
        return None;
    }
    Layout::from_size_align(layout.size().checked_next_multiple_of(PAGE)?, LINE).ok()
}

/// Takes a kept block of exactly this size.
fn take(size: usize) -> Option<*mut u8> {
    let mut spare = SPARE.lock().ok()?;
    let block = spare.iter_mut().find(|block| block.size == size)?;
    let start = block.start;
    *block = Block { start: 0, size: 0 };
    BYTES.fetch_sub(size, Ordering::Relaxed);
    Some(start as *mut u8)
}

/// Keeps a block; false if there is no room.
fn keep(start: *mut u8, size: usize) -> bool {
    let Ok(mut spare) = SPARE.lock() else {
        return false;
    };
    if BYTES.load(Ordering::Relaxed) + size > KEPT {
        return false;
    }
    let Some(block) = spare.iter_mut().find(|block| block.size == 0) else {
        return false;
    };
    *block = Block {
        start: start as usize,
        size,
    };
    BYTES.fetch_add(size, Ordering::Relaxed);
    true
}

/// Gives the kept blocks back to the system: for a process that has finished its work for now.
pub fn release() {
    let Ok(mut spare) = SPARE.lock() else {
        return;
    };
    for block in spare.iter_mut().filter(|block| block.size > 0) {
        if let Ok(layout) = Layout::from_size_align(block.size, LINE) {
            #[expect(unsafe_code, reason = "an allocator frees what it allocated")]
            // SAFETY: the block came from the system's allocator with this layout, and nobody uses it.
            unsafe {
                System.dealloc(block.start as *mut u8, layout);
            }
        }
        *block = Block { start: 0, size: 0 };
    }
    BYTES.store(0, Ordering::Relaxed);
}

/// Asks for huge pages under a fresh block.
#[cfg(all(target_os = "linux", not(miri)))]
fn advise(start: *mut u8, size: usize) {
    let first = (start as usize).next_multiple_of(PAGE);
    let last = (start as usize + size) / PAGE * PAGE;
    if last > first {
        #[expect(unsafe_code, reason = "the advice is a system call")]
        // SAFETY: the range lies within the block; the advice changes how it is backed, not what it holds.
        // It may be refused, which is as good as not asking.
        unsafe {
            libc::madvise(first as *mut libc::c_void, last - first, libc::MADV_HUGEPAGE);
        }
    }
}

#[cfg(any(not(target_os = "linux"), miri))]
fn advise(_start: *mut u8, _size: usize) {}

#[expect(unsafe_code, reason = "an allocator works on raw memory")]
// SAFETY: every block comes from the system's allocator with a layout that follows from the request alone,
// so that it is found again at the end; a kept block is in `SPARE` or with one owner, never both.
unsafe impl GlobalAlloc for KeepLarge {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(whole) = large(layout) else {
            // SAFETY: the caller's own request.
            return unsafe { System.alloc(layout) };
        };
        if let Some(block) = take(whole.size()) {
            return block;
        }
        // SAFETY: the size is not zero.
        let block = unsafe { System.alloc(whole) };
        if !block.is_null() {
            advise(block, whole.size());
        }
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(whole) = large(layout) else {
            // SAFETY: the caller's own request.
            return unsafe { System.alloc_zeroed(layout) };
        };
        if let Some(block) = take(whole.size()) {
            // SAFETY: the block has at least this size.
            unsafe { block.write_bytes(0, layout.size()) };
            return block;
        }
        // SAFETY: the size is not zero.
        let block = unsafe { System.alloc_zeroed(whole) };
        if !block.is_null() {
            advise(block, whole.size());
        }
        block
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        match large(layout) {
            Some(whole) if keep(start, whole.size()) => {}
            // SAFETY: this is how the block was allocated.
            Some(whole) => unsafe { System.dealloc(start, whole) },
            // SAFETY: the caller's own block.
            None => unsafe { System.dealloc(start, layout) },
        }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Ok(wanted) = Layout::from_size_align(size, layout.align()) else {
            return std::ptr::null_mut();
        };
        match (large(layout), large(wanted)) {
            // SAFETY: the caller's own block, which stays the system's.
            (None, None) => unsafe { System.realloc(start, layout, size) },
            (Some(before), Some(after)) if before.size() == after.size() => start,
            // SAFETY: a new block, what both hold copied, the old one given back.
            _ => unsafe {
                let block = self.alloc(wanted);
                if !block.is_null() {
                    block.copy_from_nonoverlapping(start, layout.size().min(size));
                    self.dealloc(start, layout);
                }
                block
            },
        }
    }
}

/// A buffer of which every value is written by `fill` before it is read.
///
/// # Safety
/// `fill` writes all `len` values behind the pointer.
#[expect(
    unsafe_code,
    reason = "zeroing 100 MB first would cost as much as a layer's norm"
)]
pub(crate) unsafe fn filled(len: usize, fill: impl FnOnce(*mut f32)) -> Vec<f32> {
    let mut buffer = Vec::<f32>::with_capacity(len);
    fill(buffer.as_mut_ptr());
    // SAFETY: the caller vouches that all values are there.
    unsafe { buffer.set_len(len) };
    buffer
}

/// Sixteen values on a cache line of their own.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line {
    #[expect(dead_code, reason = "read and written as plain f32")]
    values: [f32; 16],
}

/// A growing buffer that starts on a cache line.
#[derive(Default)]
pub(super) struct Aligned(Vec<Line>);

impl Aligned {
    /// Makes it at least `len` values long; new ones are zero.
    pub(super) fn grow(&mut self, len: usize) {
        if self.0.len() * 16 < len {
            self.0.resize(len.div_ceil(16), Line { values: [0.0; 16] });
        }
    }
}

impl std::ops::Deref for Aligned {
    type Target = [f32];
    #[expect(unsafe_code, reason = "lines are arrays of f32")]
    fn deref(&self) -> &[f32] {
        // SAFETY: a line is sixteen f32 and nothing else: its size is its alignment.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * 16) }
    }
}

impl std::ops::DerefMut for Aligned {
    #[expect(unsafe_code, reason = "lines are arrays of f32")]
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`; the lines are borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * 16) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_reused_and_zeroed_on_request() {
        // Miri interprets, a thousand times as slowly.
        let len = if cfg!(miri) { LARGE / 4 } else { 5 << 20 };
        let mut a = vec![1.0f32; len];
        assert_eq!(a.as_ptr() as usize % LINE, 0);
        a.push(2.0);
        let step = if cfg!(miri) { 997 } else { 1 };
        assert!(a[..len].iter().step_by(step).all(|v| *v == 1.0) && a[len] == 2.0);
        drop(a);
        let b = vec![0.0f32; len];
        assert!(b.iter().step_by(step).all(|v| *v == 0.0));
        // Grows through both kinds of block.
        let mut c: Vec<u32> = Vec::new();
        let most = if cfg!(miri) { 1 << 18 | 1 } else { 3 << 18 };
        for i in 0..most {
            c.push(i);
        }
        assert!((0u32..).zip(&c).step_by(step).all(|(i, v)| i == *v));
        release();
    }
}
