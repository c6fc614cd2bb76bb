package webhook

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"

	"golang.org/x/sync/semaphore"
)

const (
	maxBody = 1 << 20
	// maxBodies bounds what all bodies that are being received take together.
	maxBodies = 32 << 20
	bodyChunk = 64 << 10
)

// bodies receives bodies within a budget of memory. A slow sender holds no more of it than it has sent, and a chunk.
type bodies struct{ budget *semaphore.Weighted }

func newBodies() bodies { return bodies{budget: semaphore.NewWeighted(maxBodies)} }

// receive reads a body whole. The answer is what to refuse with, and nil when there is nothing to refuse. What was taken of the
// budget must be released in any case.
func (b bodies) receive(w http.ResponseWriter, r *http.Request) (body []byte, release func(), refused *answer) {
	held := int64(0)
	release = func() { b.budget.Release(held) }
	if r.ContentLength > maxBody {
		w.Header().Set("Connection", "close") // rather than reading the rest to its end
		return nil, release, &tooLarge
	}
	reader := http.MaxBytesReader(w, r.Body, maxBody)
	var received bytes.Buffer
	for {
		if !b.budget.TryAcquire(bodyChunk) {
			return nil, release, &tooMany
		}
		held += bodyChunk
		_, err := io.CopyN(&received, reader, bodyChunk)
		switch {
		case errors.Is(err, io.EOF):
			return received.Bytes(), release, nil
		case err != nil:
			return nil, release, refusalOf(err)
		}
	}
}

func refusalOf(err error) *answer {
	large, slow := new(http.MaxBytesError), net.Error(nil)
	switch {
	case errors.As(err, &large):
		return &tooLarge
	case errors.As(err, &slow) && slow.Timeout():
		return &timedOut
	default:
		cut := malformed("the body was cut off")
		return &cut
	}
}
