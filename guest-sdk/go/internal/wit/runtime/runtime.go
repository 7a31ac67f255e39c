// Package wit_runtime is what the generated bindings stand on.
//
// It is the place of go.bytecodealliance.org/pkg/wit/runtime, which takes the memory for what the host gives from the garbage
// collector, and lets go of it when the run ends. That has two costs here. A long run keeps everything it ever loaded. And an
// allocation can begin a collection, which asks WASI for the time of day: the component model forbids calls while the host
// hands over a result, so the agent would trap.
//
// So the host writes into memory of our own, which is used again for the next call. Everything in it is copied before: see
// Reuse.
package wit_runtime

import (
	"runtime"
	"unsafe"
)

// Handle is a resource of the host's, or none any more.
type Handle struct{ value int32 }

// MakeHandle takes a handle over.
func MakeHandle(value int32) *Handle {
	if value == 0 {
		panic("nil handle")
	}
	return &Handle{value}
}

// Use lends it.
func (h *Handle) Use() int32 {
	if h.value == 0 {
		panic("nil handle")
	}
	return h.value
}

// Take gives it away.
func (h *Handle) Take() int32 {
	value := h.Use()
	h.value = 0
	return value
}

// TakeOrNil gives it away, if it is there.
func (h *Handle) TakeOrNil() int32 {
	value := h.value
	h.value = 0
	return value
}

// Set gives it back.
func (h *Handle) Set(value int32) {
	if value == 0 || h.value != 0 {
		panic("handle already set, or nil")
	}
	h.value = value
}

// Allocate makes room for the arguments and the result of one call.
func Allocate(pinner *runtime.Pinner, size, align uintptr) unsafe.Pointer {
	if size == 0 {
		return nil
	}
	// Of words of 8 bytes, so that any alignment fits.
	pointer := unsafe.Pointer(unsafe.SliceData(make([]uint64, (size+7)/8)))
	pinner.Pin(pointer)
	return pointer
}

//go:linkname sbrk runtime.sbrk
func sbrk(n uintptr) unsafe.Pointer

// Blocks of memory outside the collector's. Their sizes are powers of two, so that a state that grows needs a new one rarely.
var (
	blocks  [32]struct{ base, size uintptr }
	made    int
	current int
	used    uintptr
)

const smallest = 64 << 10

// Reuse says that nothing is needed any more of what the host has given. The bindings call it before each call to the host, so
// their callers copy what they return.
func Reuse() { current, used = 0, 0 }

// Unpin is what the generated export calls when it has read its arguments.
func Unpin() {}

// Nothing here may allocate, grow the stack or wait: any of that can end in a call to the host.
//
//go:wasmexport cabi_realloc
//go:nosplit
func cabiRealloc(old unsafe.Pointer, oldSize, align, size uintptr) unsafe.Pointer {
	for ; current < made; current, used = current+1, 0 {
		block := &blocks[current]
		at := (block.base+used+align-1)&^(align-1) - block.base
		if at <= block.size && size <= block.size-at {
			used = at + size
			return unsafe.Pointer(block.base + at)
		}
	}
	take := uintptr(smallest) << min(made, 4)
	for take < size {
		take *= 2
	}
	base := uintptr(0)
	if made < len(blocks) {
		base = uintptr(sbrk(take + align))
	}
	if base == 0 {
		panic("no memory for what the host gives")
	}
	base = (base + align - 1) &^ (align - 1)
	blocks[made].base, blocks[made].size = base, take
	current, used = made, size
	made++
	return unsafe.Pointer(base)
}

// What the adapter of WASI takes is for itself, and for the whole run: the stack that it runs on, and what it knows. It asks
// for that at its first call, in the middle of the run, and takes it from cabi_realloc where there is no function of this name.
// It would then lie in a block that the next result of the host is written to.
//
//go:wasmexport cabi_realloc_adapter
//go:nosplit
func cabiReallocAdapter(old unsafe.Pointer, oldSize, align, size uintptr) unsafe.Pointer {
	base := uintptr(sbrk(size + align))
	if base == 0 {
		panic("no memory for the adapter of WASI")
	}
	return unsafe.Pointer((base + align - 1) &^ (align - 1))
}
