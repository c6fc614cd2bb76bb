package gitsync

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/memory"
	"golang.org/x/sync/semaphore"

	v1 "sluice.dev/sluice/api/v1"
)

// packBuilder writes packs that git would not.
type packBuilder struct {
	body    bytes.Buffer
	deflate *zlib.Writer
	count   uint32
	offsets []int
}

// add appends an object that declares size and holds content. base is the distance back to a delta's base.
func (p *packBuilder) add(kind plumbing.ObjectType, size uint64, base int, content []byte) {
	p.offsets = append(p.offsets, 12+p.body.Len())
	first := byte(kind)<<4 | byte(size&15)
	for size >>= 4; size > 0; size >>= 7 {
		p.body.WriteByte(first | 0x80)
		first = byte(size & 127)
	}
	p.body.WriteByte(first)
	if kind == plumbing.OFSDeltaObject {
		encoded := []byte{byte(base & 127)}
		for base >>= 7; base > 0; base >>= 7 {
			base--
			encoded = append([]byte{byte(base&127) | 0x80}, encoded...)
		}
		p.body.Write(encoded)
	}
	if p.deflate == nil {
		p.deflate = zlib.NewWriter(&p.body)
	}
	p.deflate.Reset(&p.body)
	_, _ = p.deflate.Write(content)
	_ = p.deflate.Close()
	p.count++
}

func (p *packBuilder) pack() []byte {
	var pack bytes.Buffer
	pack.WriteString("PACK")
	_ = binary.Write(&pack, binary.BigEndian, []uint32{2, p.count})
	pack.Write(p.body.Bytes())
	sum := sha1.Sum(pack.Bytes())
	pack.Write(sum[:])
	return pack.Bytes()
}

func delta(sourceSize, targetSize uint64, ops ...byte) []byte {
	return append(binary.AppendUvarint(binary.AppendUvarint(nil, sourceSize), targetSize), ops...)
}

func TestUnpackRefuses(t *testing.T) {
	const limit = 1 << 20
	sound := func() *packBuilder {
		p := &packBuilder{}
		p.add(plumbing.BlobObject, 4, 0, []byte("base"))
		return p
	}
	for name, tc := range map[string]struct {
		pack func() []byte
		want string
	}{
		"no pack":   {func() []byte { return []byte("nothing of the kind") }, ""},
		"no bytes":  {func() []byte { return nil }, ""},
		"cut short": {func() []byte { p := sound().pack(); return p[:len(p)-25] }, ""},
		"count too high": {func() []byte {
			p := sound()
			p.count = 2
			return p.pack()
		}, ""},
		"count absurd": {func() []byte {
			p := sound()
			p.count = 1 << 31
			return p.pack()
		}, "2147483648 objects"},
		"declares a gigabyte": {func() []byte {
			p := sound()
			p.add(plumbing.BlobObject, 1<<30, 0, []byte("small"))
			return p.pack()
		}, "unpacks to more than"},
		"declares the most": {func() []byte {
			p := sound()
			p.add(plumbing.BlobObject, 1<<62, 0, []byte("small"))
			return p.pack()
		}, ""},
		"declares less than it is": {func() []byte {
			p := sound()
			p.add(plumbing.BlobObject, 10, 0, make([]byte, 10*limit))
			return p.pack()
		}, ""},
		"adds up": {func() []byte {
			p := sound()
			for range 12 {
				p.add(plumbing.BlobObject, limit/10, 0, make([]byte, limit/10))
			}
			return p.pack()
		}, "unpacks to more than"},
		"delta makes a terabyte": {func() []byte {
			p := sound()
			content := delta(4, 1<<40, 0x90, 4)
			p.add(plumbing.OFSDeltaObject, uint64(len(content)), 12+p.body.Len()-p.offsets[0], content)
			return p.pack()
		}, "unpacks to more than"},
		"delta without sizes": {func() []byte {
			p := sound()
			p.add(plumbing.OFSDeltaObject, 0, 12+p.body.Len()-p.offsets[0], nil)
			return p.pack()
		}, "a delta has no sizes"},
		"delta copies what is not there": {func() []byte {
			p := sound()
			content := delta(4, 100, 0x90, 100)
			p.add(plumbing.OFSDeltaObject, uint64(len(content)), 12+p.body.Len()-p.offsets[0], content)
			return p.pack()
		}, "corrupt"},
		"deep deltas": {func() []byte {
			p := sound()
			for i := range 5000 {
				content := delta(4, 4, 0x90, 4)
				p.add(plumbing.OFSDeltaObject, uint64(len(content)), 12+p.body.Len()-p.offsets[i], content)
			}
			return p.pack()
		}, "delta chain depth"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := unpack(t.Context(), tc.pack(), limit, alone())
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
	p := sound()
	content := delta(4, 8, 0x90, 4, 0x90, 4)
	p.add(plumbing.OFSDeltaObject, uint64(len(content)), 12+p.body.Len()-p.offsets[0], content)
	objects, err := unpack(t.Context(), p.pack(), limit, alone())
	if err != nil || len(objects.Blobs) != 2 {
		t.Errorf("a sound pack: %v", err)
	}
}

// storeTree puts a tree of entries into objects.
func storeTree(t *testing.T, objects *memory.Storage, entries ...object.TreeEntry) plumbing.Hash {
	t.Helper()
	encoded := objects.NewEncodedObject()
	if err := (&object.Tree{Entries: entries}).Encode(encoded); err != nil {
		t.Fatal(err)
	}
	hash, err := objects.SetEncodedObject(encoded)
	if err != nil {
		t.Fatal(err)
	}
	return hash
}

func storeBlob(t *testing.T, objects *memory.Storage, content []byte) plumbing.Hash {
	t.Helper()
	encoded := &plumbing.MemoryObject{}
	encoded.SetType(plumbing.BlobObject)
	_, _ = encoded.Write(content)
	hash, err := objects.SetEncodedObject(encoded)
	if err != nil {
		t.Fatal(err)
	}
	return hash
}

// Trees that name one subtree or one blob many times over are small in a pack and boundless in a walk.
func TestReadFilesBounds(t *testing.T) {
	objects := memory.NewStorage()
	blob := storeBlob(t, objects, make([]byte, MaxFileBytes))
	letters := "abcdefghijklmnopqrstuvwxyz"
	wide := storeTree(t, objects)
	for range 8 {
		var entries []object.TreeEntry
		for _, letter := range letters {
			entries = append(entries, object.TreeEntry{Name: string(letter), Mode: filemode.Dir, Hash: wide})
		}
		wide = storeTree(t, objects, entries...)
	}
	deep := storeTree(t, objects)
	for range maxDepth + 2 {
		deep = storeTree(t, objects, object.TreeEntry{Name: "d", Mode: filemode.Dir, Hash: deep})
	}
	var repeated []object.TreeEntry
	for _, first := range letters {
		for _, second := range letters {
			repeated = append(repeated, object.TreeEntry{Name: string(first) + string(second) + ".yaml", Mode: filemode.Regular, Hash: blob})
		}
	}
	for name, tc := range map[string]struct {
		root plumbing.Hash
		want string
	}{
		"wide":     {wide, "more than 200000 files and folders"},
		"deep":     {deep, "nest deeper than 64"},
		"repeated": {storeTree(t, objects, repeated...), "are over 33554432 bytes together"},
		"missing":  {storeTree(t, objects, object.TreeEntry{Name: "a.yaml", Mode: filemode.Regular, Hash: plumbing.NewHash("1")}), "a.yaml"},
	} {
		if _, err := ReadFiles(t.Context(), newGitTree(t.Context(), objects, tc.root), ""); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ReadFiles(ctx, newGitTree(ctx, objects, wide), ""); err == nil {
		t.Error("a walk outlived its context")
	}
}

// No pack makes the process panic, or hold much more than its limit.
func FuzzUnpack(f *testing.F) {
	p := &packBuilder{}
	p.add(plumbing.BlobObject, 4, 0, []byte("base"))
	content := delta(4, 8, 0x90, 4, 0x90, 4)
	p.add(plumbing.OFSDeltaObject, uint64(len(content)), 12+p.body.Len()-p.offsets[0], content)
	f.Add(p.pack())
	f.Add([]byte("PACK\x00\x00\x00\x02\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, pack []byte) {
		const limit = 1 << 16
		objects, err := unpack(t.Context(), pack, limit, alone())
		if err != nil {
			return
		}
		var total int64
		for _, o := range objects.Objects {
			total += o.Size()
		}
		if total > limit {
			t.Errorf("%d bytes were unpacked, the limit is %d", total, limit)
		}
	})
}

// alone is the share of a fetch beside which there is no other.
func alone() *memoryShare { return &memoryShare{large: semaphore.NewWeighted(1)} }

// While as many large repositories as may be are being fetched, a small one is fetched and another large one waits for its turn.
func TestLargeRepositoriesWait(t *testing.T) {
	t.Parallel()
	small, packed, unpacking := newRepository(t), newRepository(t), newRepository(t)
	small.write("a.yaml", "a: 1\n")
	noise := make([]byte, 2*smallPack)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise) // always fills it
	packed.write("noise.bin", string(noise))
	packed.write("a.yaml", "a: 1\n")
	unpacking.write("zeros.bin", strings.Repeat("\x00", 2*smallUnpacked))
	unpacking.write("a.yaml", "a: 1\n")
	fetcher := &Fetcher{Timeout: time.Second}
	fetcher.once.Do(func() { fetcher.large = semaphore.NewWeighted(1) })
	turn := &memoryShare{large: fetcher.large}
	if err := turn.grow(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*repository{small, packed, unpacking} {
		r.push()
	}
	patient := &Fetcher{large: fetcher.large}
	patient.once.Do(func() {})
	if _, err := patient.Fetch(t.Context(), small.source("", v1.GitRef{}), ""); err != nil {
		t.Errorf("a small repository: %v", err)
	}
	for _, r := range []*repository{packed, unpacking} {
		// On a busy machine the time may be over before it is told to wait.
		_, err := fetcher.Fetch(t.Context(), r.source("", v1.GitRef{}), "")
		if err == nil || !strings.Contains(err.Error(), errNoTurn.Error()) && !strings.Contains(err.Error(), "no complete answer within") {
			t.Errorf("a large repository without its turn: %v", err)
		}
	}
	turn.free()
	for range 2 { // each gives its turn back
		for _, r := range []*repository{packed, unpacking} {
			if _, err := patient.Fetch(t.Context(), r.source("", v1.GitRef{}), ""); err != nil {
				t.Errorf("a large repository: %v", err)
			}
		}
	}
}
