package webhook

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-github/v89/github"

	v1 "sluice.dev/sluice/api/v1"
)

// What a delivery tells of.
const (
	kindPush  = "push"
	kindPing  = "ping"
	kindOther = "other"
)

// event is what a verified delivery tells.
type event struct {
	// kind is push, ping or other; name is what the provider calls it.
	kind, name string
	// refs that were pushed, in full (refs/heads/main); none when the provider does not say.
	refs []string
}

// provider is how one kind of forge signs and speaks.
type provider struct {
	// header carries the signature.
	header string
	// valid tells, in a time that does not depend on the key, whether the signature is the key's for the body.
	valid func(signature string, body, key []byte) bool
	// read takes from a verified body what matters of it.
	read func(header http.Header, body []byte) (event, error)
}

var providers = map[string]provider{
	"github":    {header: github.SHA256SignatureHeader, valid: validGitHub, read: readGitHub},
	"gitlab":    {header: "X-Gitlab-Token", valid: validToken, read: readGitLab},
	"gitea":     {header: "X-Gitea-Signature", valid: validHex, read: readGitea},
	"bitbucket": {header: "X-Hub-Signature", valid: validPrefixed, read: readBitbucket},
	"generic":   {header: "X-Signature", valid: validPrefixed, read: readGeneric},
}

const sha256Prefix = "sha256="

// validGitHub knows SHA-256 alone; the library would take SHA-1 as well.
func validGitHub(signature string, body, key []byte) bool {
	return strings.HasPrefix(signature, sha256Prefix) && github.ValidateSignature(signature, body, key) == nil
}

func validPrefixed(signature string, body, key []byte) bool {
	digest, found := strings.CutPrefix(signature, sha256Prefix)
	return found && validHex(digest, body, key)
}

func validHex(signature string, body, key []byte) bool {
	given, err := hex.DecodeString(signature)
	if err != nil {
		return false
	}
	return hmac.Equal(given, signatureOf(body, key))
}

// validToken compares digests, so that not even the key's length shows.
func validToken(token string, _, key []byte) bool {
	given, want := sha256.Sum256([]byte(token)), sha256.Sum256(key)
	return subtle.ConstantTimeCompare(given[:], want[:]) == 1
}

func signatureOf(body, key []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(body)
	return mac.Sum(nil)
}

// pushed is the part of a push that GitHub, GitLab and Gitea have in common.
type pushed struct {
	Ref string `json:"ref"`
}

func readPush(name string, body []byte) (event, error) {
	var push pushed
	if err := json.Unmarshal(body, &push); err != nil {
		return event{}, fmt.Errorf("the body of a %q must be a JSON object: %w", name, err)
	}
	if push.Ref == "" {
		return event{}, fmt.Errorf("the body of a %q must name the ref that was pushed", name)
	}
	return event{kind: kindPush, name: name, refs: []string{push.Ref}}, nil
}

// readOther is an event that nothing follows from; that its body is JSON is asked all the same.
func readOther(kind, name string, body []byte) (event, error) {
	if !json.Valid(body) {
		return event{}, fmt.Errorf("the body of %q must be JSON", name)
	}
	return event{kind: kind, name: name}, nil
}

func readGitHub(header http.Header, body []byte) (event, error) {
	contentType, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		return event{}, fmt.Errorf("the Content-Type %q: %w", header.Get("Content-Type"), err)
	}
	// Verified before; this takes the payload out of a form, if it is in one.
	payload, err := github.ValidatePayloadFromBody(contentType, bytes.NewReader(body), "", nil)
	if err != nil {
		return event{}, fmt.Errorf("the body: %w", err)
	}
	switch name := header.Get(github.EventTypeHeader); name {
	case "push":
		return readPush(name, payload)
	case "ping":
		return readOther(kindPing, name, payload)
	default:
		return readOther(kindOther, name, payload)
	}
}

func readGitLab(header http.Header, body []byte) (event, error) {
	switch name := header.Get("X-Gitlab-Event"); name {
	case "Push Hook", "Tag Push Hook":
		return readPush(name, body)
	default:
		return readOther(kindOther, name, body)
	}
}

func readGitea(header http.Header, body []byte) (event, error) {
	if name := header.Get("X-Gitea-Event"); name != "push" {
		return readOther(kindOther, name, body)
	}
	return readPush("push", body)
}

// bitbucketPush holds what Bitbucket Cloud (push) and Data Center (changes) send.
type bitbucketPush struct {
	Push struct {
		Changes []struct {
			New *bitbucketRef `json:"new"`
			Old *bitbucketRef `json:"old"`
		} `json:"changes"`
	} `json:"push"`
	Changes []struct {
		Ref struct {
			ID string `json:"id"`
		} `json:"ref"`
	} `json:"changes"`
}

type bitbucketRef struct {
	Type string `json:"type"`
	Name string `json:"name"`
}

func readBitbucket(header http.Header, body []byte) (event, error) {
	name := header.Get("X-Event-Key")
	switch name {
	case "repo:push", "repo:refs_changed":
	case "diagnostics:ping":
		return readOther(kindPing, name, body)
	default:
		return readOther(kindOther, name, body)
	}
	var push bitbucketPush
	if err := json.Unmarshal(body, &push); err != nil {
		return event{}, fmt.Errorf("the body of a %q must be a JSON object: %w", name, err)
	}
	told := event{kind: kindPush, name: name}
	for _, change := range push.Push.Changes {
		ref := cmp.Or(change.New, change.Old)
		switch {
		case ref == nil:
		case ref.Type == "tag":
			told.refs = append(told.refs, tagPrefix+ref.Name)
		default:
			told.refs = append(told.refs, branchPrefix+ref.Name)
		}
	}
	for _, change := range push.Changes {
		told.refs = append(told.refs, change.Ref.ID)
	}
	return told, nil
}

// readGeneric takes any JSON, and nothing at all: a signature over an empty body says "fetch now" as well.
func readGeneric(_ http.Header, body []byte) (event, error) {
	told := event{kind: kindPush, name: "delivery"}
	if len(bytes.TrimSpace(body)) == 0 {
		return told, nil
	}
	if !json.Valid(body) {
		return event{}, fmt.Errorf("the body must be JSON, or empty")
	}
	var push pushed
	if err := json.Unmarshal(body, &push); err == nil && push.Ref != "" {
		told.refs = []string{push.Ref}
	}
	return told, nil
}

const (
	branchPrefix  = "refs/heads/"
	tagPrefix     = "refs/tags/"
	defaultBranch = "main"
)

// concerns tells whether a push may have moved what a GitSync follows. When in doubt it does: a fetch is cheap.
func concerns(ref *v1.GitRef, refs []string) bool {
	followed := branchPrefix + defaultBranch
	switch {
	case len(refs) == 0:
		return true
	case ref == nil:
	case ref.Branch != "":
		followed = branchPrefix + ref.Branch
	case ref.Tag != "":
		followed = tagPrefix + ref.Tag
	default:
		return true
	}
	return slices.ContainsFunc(refs, func(pushed string) bool {
		return pushed == followed || !strings.HasPrefix(pushed, "refs/") && strings.HasSuffix(followed, "/"+pushed)
	})
}
