package gitsync

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/storage/memory"
	"golang.org/x/sync/semaphore"
)

// maxObjects bounds the bookkeeping of a pack, whose objects may be empty, and the time that chains of deltas take.
const maxObjects = 200_000

// download gets the pack of request and unpacks it in memory.
func download(ctx context.Context, session transport.UploadPackSession, request *packp.UploadPackRequest, maxBytes int64, share *memoryShare) (*memory.Storage, error) {
	response, err := session.UploadPack(ctx, request)
	if err != nil {
		return nil, err
	}
	defer response.Close() //nolint:errcheck // nothing is written
	var pack bytes.Buffer
	sent := contextReader{ctx, demultiplex(request.Capabilities, response)}
	_, err = io.CopyN(&pack, sent, smallPack)
	if err == nil {
		if err = share.grow(ctx); err == nil {
			_, err = pack.ReadFrom(sent)
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read the pack: %w", err)
	}
	return unpack(ctx, pack.Bytes(), maxBytes, share)
}

// What a fetch may hold in memory without asking, of the pack and of what it unpacks to; and how many may hold more at a time.
// So what all fetches hold together is bounded, and small repositories do not wait for large ones.
const (
	smallPack, smallUnpacked = 2 << 20, 8 << 20
	largeFetches             = 2
)

var errNoTurn = errors.New("this large repository waited in vain until others had been fetched: it is tried again")

// memoryShare is what one fetch may hold.
type memoryShare struct {
	large *semaphore.Weighted
	grown bool
}

// grow waits until the fetch may hold as much as it wants.
func (s *memoryShare) grow(ctx context.Context) error {
	if s.grown {
		return nil
	}
	if err := s.large.Acquire(ctx, 1); err != nil {
		return errNoTurn
	}
	s.grown = true
	return nil
}

func (s *memoryShare) free() {
	if s.grown {
		s.large.Release(1)
	}
}

func demultiplex(capabilities *capability.List, r io.Reader) io.Reader {
	switch {
	case capabilities.Supports(capability.Sideband64k):
		return sideband.NewDemuxer(sideband.Sideband64k, r)
	case capabilities.Supports(capability.Sideband):
		return sideband.NewDemuxer(sideband.Sideband, r)
	default:
		return r
	}
}

func unpack(ctx context.Context, pack []byte, maxBytes int64, share *memoryShare) (*memory.Storage, error) {
	size, err := weigh(ctx, pack, maxBytes)
	if err != nil {
		return nil, fmt.Errorf("the pack is refused: %w", err)
	}
	if size > smallUnpacked {
		if err := share.grow(ctx); err != nil {
			return nil, err
		}
	}
	objects := memory.NewStorage()
	parser, err := packfile.NewParserWithStorage(packfile.NewScanner(bytes.NewReader(pack)), objects)
	if err != nil {
		return nil, err
	}
	if _, err := parser.Parse(); err != nil {
		return nil, fmt.Errorf("the pack is corrupt: %w", err)
	}
	return objects, nil
}

// weigh reads through a pack before anything of it is kept, and refuses one that would unpack to more than maxBytes. size is what
// it unpacks to at most.
// The sizes that it declares are believed only as upper bounds: the parser allocates by them, and refuses to exceed them.
func weigh(ctx context.Context, pack []byte, maxBytes int64) (size int64, err error) {
	scanner := packfile.NewScanner(bytes.NewReader(pack))
	_, count, err := scanner.Header()
	if err != nil {
		return 0, err
	}
	if count > maxObjects {
		return 0, fmt.Errorf("it has %d objects: at most %d are allowed", count, maxObjects)
	}
	left := maxBytes
	for range count {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		header, err := scanner.NextObjectHeader()
		if err != nil {
			return 0, err
		}
		if header.Length < 0 || header.Length > left {
			return 0, fmt.Errorf("%w: it unpacks to more than %d bytes", errTooLarge, maxBytes)
		}
		left -= header.Length
		var start prefix
		if _, _, err := scanner.NextObject(&start); err != nil {
			return 0, err
		}
		if header.Type == plumbing.OFSDeltaObject || header.Type == plumbing.REFDeltaObject {
			size, err := start.deltaTarget()
			if err != nil {
				return 0, err
			}
			if size > uint64(left) {
				return 0, fmt.Errorf("%w: it unpacks to more than %d bytes", errTooLarge, maxBytes)
			}
			left -= int64(size)
		}
	}
	return maxBytes - left, nil
}

// prefix keeps the first bytes that are written to it: in a delta they tell the sizes of its base and of its result.
type prefix struct {
	bytes [2 * binary.MaxVarintLen64]byte
	n     int
}

// Write implements io.Writer.
func (p *prefix) Write(data []byte) (int, error) {
	p.n += copy(p.bytes[p.n:], data)
	return len(data), nil
}

// deltaTarget is the size in bytes of what a delta makes of its base.
func (p *prefix) deltaTarget() (uint64, error) {
	_, n := binary.Uvarint(p.bytes[:p.n])
	if n <= 0 {
		return 0, errors.New("a delta has no sizes")
	}
	size, m := binary.Uvarint(p.bytes[n:p.n])
	if m <= 0 {
		return 0, errors.New("a delta has no sizes")
	}
	return size, nil
}

// commitOf finds the commit of a target among the objects, through annotated tags.
func commitOf(objects *memory.Storage, found target) (*object.Commit, error) {
	hash := plumbing.NewHash(found.commit)
	const deepest = 8 // tags of tags
	for range deepest {
		if tag, ok := objects.Tags[hash]; ok {
			decoded, err := object.DecodeTag(objects, tag)
			if err != nil {
				return nil, fmt.Errorf("tag %s: %w", hash, err)
			}
			hash = decoded.Target
			continue
		}
		commit, err := object.GetCommit(objects, hash)
		if errors.Is(err, plumbing.ErrObjectNotFound) {
			return nil, fmt.Errorf("commit %s is not there: no branch and no tag of the repository leads to it", hash)
		}
		return commit, err
	}
	return nil, fmt.Errorf("tag %s: more than %d tags in a row", found.commit, deepest)
}

func basicValue(c Credentials) string {
	if c.Password == "" {
		return ""
	}
	return base64.StdEncoding.EncodeToString([]byte(c.Username + ":" + c.Password))
}
