package gitsync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	"golang.org/x/sync/semaphore"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/kustomization"
)

const (
	// DefaultFetchTimeout bounds one fetch: all requests and all decoding.
	DefaultFetchTimeout = time.Minute
	// DefaultMaxBytes bounds a pack, both as it is sent and as it unpacks.
	DefaultMaxBytes = 100 << 20
)

// Fetcher brings commits into memory. It keeps nothing between two fetches and is safe for concurrent use.
type Fetcher struct {
	// Timeout of one fetch; 0 means DefaultFetchTimeout.
	Timeout time.Duration
	// MaxBytes bounds the pack as it is sent, and again its objects as they unpack; 0 means DefaultMaxBytes.
	MaxBytes int64

	once  sync.Once
	large *semaphore.Weighted
}

// Snapshot is one commit of a repository.
type Snapshot struct {
	// Commit is the full SHA-1.
	Commit string
	// Files below the source's path; nil when Unchanged.
	Files []File
	// Unchanged is true when the ref still names the commit that the caller knows; then nothing was downloaded.
	Unchanged bool
}

// File is one manifest file of a commit, or an object that a kustomization of it was rendered to.
type File struct {
	// Path from the repository's root; of what is rendered, the kustomization's.
	Path    string
	Content []byte
	// Rendered is true for one object, as JSON.
	Rendered bool
}

// Fetch asks the server which commit the source's ref names and downloads that one commit unless it is the known one.
// It returns within the timeout. Its errors never hold credentials. A ContentError comes with the commit that it is about.
func (f *Fetcher) Fetch(ctx context.Context, source Source, known string) (snapshot Snapshot, err error) {
	if known != "" && source.Ref.Commit == known {
		return Snapshot{Commit: known, Unchanged: true}, nil
	}
	timeout := cmp.Or(f.Timeout, DefaultFetchTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no complete answer within %s", timeout))
	defer cancel()
	defer func() {
		if crash := recover(); crash != nil {
			err = fmt.Errorf("the server's answer is corrupt: %v", crash)
		}
		if bad := new(ContentError); err != nil && (ctx.Err() != nil || !errors.As(err, &bad)) {
			err = fmt.Errorf("fetch %s: %w", source.URL.Redacted(), explain(ctx, err, source))
		}
	}()
	return f.fetch(ctx, source, known)
}

func (f *Fetcher) fetch(ctx context.Context, source Source, known string) (Snapshot, error) {
	maxBytes := cmp.Or(f.MaxBytes, DefaultMaxBytes)
	session, free, err := newSession(source, maxBytes)
	if err != nil {
		return Snapshot{}, err
	}
	defer free()
	refs, err := session.AdvertisedReferencesContext(ctx)
	if err != nil {
		return Snapshot{}, err
	}
	found, err := resolve(refs, source.Ref)
	if err != nil {
		return Snapshot{}, err
	}
	if known != "" && found.commit == known {
		return Snapshot{Commit: known, Unchanged: true}, nil
	}
	f.once.Do(func() { f.large = semaphore.NewWeighted(largeFetches) })
	share := &memoryShare{large: f.large}
	defer share.free()
	objects, err := download(ctx, session, makeRequest(refs.Capabilities, found), maxBytes, share)
	if err != nil {
		return Snapshot{}, err
	}
	commit, err := commitOf(objects, found)
	if err != nil {
		return Snapshot{}, err
	}
	files, err := ReadFiles(ctx, newGitTree(ctx, objects, commit.TreeHash), source.Path)
	switch {
	case errors.Is(err, plumbing.ErrObjectNotFound):
		return Snapshot{}, fmt.Errorf("the server left out a part of commit %s: %w", commit.Hash, err) // which another answer may have
	case err != nil:
		err = &ContentError{Err: err}
	}
	return Snapshot{Commit: commit.Hash.String(), Files: files}, err
}

func newSession(source Source, maxBytes int64) (transport.UploadPackSession, func(), error) {
	client, free, err := newClient(source, maxBytes)
	if err != nil {
		return nil, nil, err
	}
	endpoint, err := transport.NewEndpoint(source.URL.String())
	if err != nil {
		return nil, nil, err
	}
	session, err := githttp.NewClient(client).NewUploadPackSession(endpoint, authOf(source.Credentials))
	return session, free, err
}

func authOf(c Credentials) transport.AuthMethod {
	switch {
	case c.BearerToken != "":
		return &githttp.TokenAuth{Token: c.BearerToken}
	case c.Password != "":
		return &githttp.BasicAuth{Username: c.Username, Password: c.Password}
	default:
		return nil
	}
}

// target is what a ref resolved to: the commit if the server told it, and what to ask for.
type target struct {
	commit string
	wants  []plumbing.Hash
	// whole is true when the commit is somewhere in the history of what is wanted.
	whole bool
}

func resolve(refs *packp.AdvRefs, ref v1.GitRef) (target, error) {
	if ref.Commit != "" {
		return resolveCommit(refs, ref.Commit), nil
	}
	kind, prefix, name := "branch", "refs/heads/", ref.Branch
	if ref.Tag != "" {
		kind, prefix, name = "tag", "refs/tags/", ref.Tag
	}
	hash, ok := refs.References[prefix+name]
	if !ok {
		return target{}, fmt.Errorf("%s %q is not there: the repository has %s", kind, name, namesWith(refs, prefix))
	}
	commit := hash
	if peeled, ok := refs.Peeled[prefix+name]; ok {
		commit = peeled
	}
	return target{commit: commit.String(), wants: []plumbing.Hash{hash}}, nil
}

// resolveCommit asks for the commit alone where the server allows it, else for everything, to look for it there.
func resolveCommit(refs *packp.AdvRefs, commit string) target {
	hash := plumbing.NewHash(commit)
	single := target{commit: commit, wants: []plumbing.Hash{hash}}
	if refs.Capabilities.Supports(capability.AllowReachableSHA1InWant) {
		return single
	}
	everything := target{commit: commit, whole: true}
	for name, tip := range refs.References {
		if tip == hash {
			return single
		}
		if strings.HasPrefix(name, "refs/heads/") || strings.HasPrefix(name, "refs/tags/") {
			everything.wants = append(everything.wants, tip)
		}
	}
	slices.SortFunc(everything.wants, func(a, b plumbing.Hash) int { return slices.Compare(a[:], b[:]) })
	everything.wants = slices.Compact(everything.wants)
	return everything
}

func namesWith(refs *packp.AdvRefs, prefix string) string {
	const shown = 10
	var names []string
	for name := range refs.References {
		if short, ok := strings.CutPrefix(name, prefix); ok {
			names = append(names, short)
		}
	}
	slices.Sort(names)
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > shown:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:shown], ", "), len(names)-shown)
	default:
		return strings.Join(names, ", ")
	}
}

func makeRequest(capabilities *capability.List, found target) *packp.UploadPackRequest {
	request := packp.NewUploadPackRequestFromCapabilities(capabilities)
	request.Wants = found.wants
	if capabilities.Supports(capability.NoProgress) {
		_ = request.Capabilities.Set(capability.NoProgress) // refuses arguments only
	}
	if !found.whole && capabilities.Supports(capability.Shallow) {
		_ = request.Capabilities.Set(capability.Shallow)
		request.Depth = packp.DepthCommits(1)
	}
	return request
}

// explain says what a person can do about the commonest errors, and takes out what must not or need not be read.
func explain(ctx context.Context, err error, source Source) error {
	for unexpected := new(plumbing.UnexpectedError); errors.As(err, &unexpected); {
		err = unexpected.Err
	}
	var transfer *url.Error
	var network *net.OpError
	switch {
	case errors.Is(err, errNoTurn):
		return errNoTurn
	case errors.Is(err, kustomization.ErrNoTurn):
		return kustomization.ErrNoTurn
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, transport.ErrAuthenticationRequired), errors.Is(err, transport.ErrAuthorizationFailed):
		if source.Credentials.secret() {
			return errors.New("the server refuses the credentials of secretRef")
		}
		return errors.New("the server asks for credentials: set secretRef to a Secret with username and password, or bearerToken")
	case errors.Is(err, transport.ErrRepositoryNotFound):
		return errors.New("the server has no such repository, or does not show it to these credentials")
	case errors.Is(err, transport.ErrEmptyRemoteRepository):
		return errors.New("the repository is empty: push a commit first")
	case errors.As(err, &network):
		// Its text can hold the local port, which is another one each time.
		return &redacted{text: redact(fmt.Sprintf("%s: %v", network.Op, network.Err), source.Credentials), err: err}
	case errors.As(err, &transfer):
		return &redacted{text: redact(transfer.Err.Error(), source.Credentials), err: err}
	}
	return &redacted{text: redact(err.Error(), source.Credentials), err: err}
}

// redacted carries an error under a text that others may read.
type redacted struct {
	text string
	err  error
}

func (r *redacted) Error() string { return r.text }
func (r *redacted) Unwrap() error { return r.err }

// redact takes credentials that a server might have echoed out of text, and bounds it to a line.
func redact(text string, c Credentials) string {
	for _, secret := range []string{c.Password, c.BearerToken, basicValue(c)} {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "***")
		}
	}
	const longest = 400
	return oneLine(text, longest)
}

// oneLine bounds text to longest bytes and takes out line breaks.
func oneLine(text string, longest int) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + "…"
	}
	return text
}
