package webhook

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "sluice.dev/sluice/api/v1"
)

const (
	key      = "It's a Secret to Everybody"
	pushBody = `{"ref": "refs/heads/main", "after": "0123456789012345678901234567890123456789"}`
)

// sign is a provider's signature, as its documentation says.
func sign(from, body, key string) string {
	digest := hex.EncodeToString(signatureOf([]byte(body), []byte(key)))
	switch from {
	case "gitlab":
		return key
	case "gitea":
		return digest
	default:
		return "sha256=" + digest
	}
}

// GitHub's documentation gives this example to test implementations with.
func TestExampleOfGitHub(t *testing.T) {
	const signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
	for _, from := range []string{"github", "bitbucket", "generic"} {
		if !providers[from].valid(signature, []byte("Hello, World!"), []byte(key)) {
			t.Errorf("%s refuses %s", from, signature)
		}
	}
}

func TestSignatures(t *testing.T) {
	weak := hmac.New(sha1.New, []byte(key))
	weak.Write([]byte(pushBody))
	for from, p := range providers {
		t.Run(from, func(t *testing.T) {
			right := sign(from, pushBody, key)
			if !p.valid(right, []byte(pushBody), []byte(key)) {
				t.Errorf("refused %s", right)
			}
			wrong := map[string]string{
				"none": "", "prefix alone": "sha256=", "other key": sign(from, pushBody, key+"!"), "cut": right[:len(right)-1],
				"longer": right + "00", "no hex": "sha256=zz", "SHA-1": "sha1=" + hex.EncodeToString(weak.Sum(nil)),
			}
			if from != "gitlab" {
				wrong["other body"] = sign(from, pushBody+" ", key)
			}
			for name, signature := range wrong {
				if p.valid(signature, []byte(pushBody), []byte(key)) {
					t.Errorf("%s: accepted %q", name, signature)
				}
			}
		})
	}
}

func TestReadEvents(t *testing.T) {
	main := event{kind: kindPush, name: "push", refs: []string{"refs/heads/main"}}
	for name, tt := range map[string]struct {
		from   string
		header map[string]string
		body   string
		want   event
		refuse string
	}{
		"github push": {from: "github", header: map[string]string{"X-GitHub-Event": "push"}, body: pushBody, want: main},
		"github push in a form": {
			from:   "github",
			header: map[string]string{"X-GitHub-Event": "push", "Content-Type": "application/x-www-form-urlencoded"},
			body:   "payload=%7B%22ref%22%3A%22refs%2Fheads%2Fmain%22%7D", want: main,
		},
		"github ping":         {from: "github", header: map[string]string{"X-GitHub-Event": "ping"}, body: `{"zen": "x"}`, want: event{kind: kindPing, name: "ping"}},
		"github star":         {from: "github", header: map[string]string{"X-GitHub-Event": "star"}, body: `{}`, want: event{kind: kindOther, name: "star"}},
		"github no type":      {from: "github", header: map[string]string{"Content-Type": ""}, body: `{}`, refuse: "Content-Type"},
		"github other type":   {from: "github", header: map[string]string{"Content-Type": "text/html"}, body: `{}`, refuse: "Content-Type"},
		"github cut":          {from: "github", header: map[string]string{"X-GitHub-Event": "push"}, body: `{"ref": "refs/hea`, refuse: "JSON"},
		"github list":         {from: "github", header: map[string]string{"X-GitHub-Event": "push"}, body: `[1]`, refuse: "JSON object"},
		"github no ref":       {from: "github", header: map[string]string{"X-GitHub-Event": "push"}, body: `null`, refuse: "must name the ref"},
		"github deep":         {from: "github", header: map[string]string{"X-GitHub-Event": "push"}, body: strings.Repeat("[", 100_000), refuse: "JSON"},
		"github ping cut":     {from: "github", header: map[string]string{"X-GitHub-Event": "ping"}, body: `{`, refuse: "JSON"},
		"gitlab push":         {from: "gitlab", header: map[string]string{"X-Gitlab-Event": "Push Hook"}, body: pushBody, want: event{kind: kindPush, name: "Push Hook", refs: main.refs}},
		"gitlab tag":          {from: "gitlab", header: map[string]string{"X-Gitlab-Event": "Tag Push Hook"}, body: `{"ref":"refs/tags/v1"}`, want: event{kind: kindPush, name: "Tag Push Hook", refs: []string{"refs/tags/v1"}}},
		"gitlab note":         {from: "gitlab", header: map[string]string{"X-Gitlab-Event": "Note Hook"}, body: `{}`, want: event{kind: kindOther, name: "Note Hook"}},
		"gitea push":          {from: "gitea", header: map[string]string{"X-Gitea-Event": "push"}, body: pushBody, want: main},
		"gitea issue":         {from: "gitea", header: map[string]string{"X-Gitea-Event": "issues"}, body: `{}`, want: event{kind: kindOther, name: "issues"}},
		"bitbucket push":      {from: "bitbucket", header: map[string]string{"X-Event-Key": "repo:push"}, body: `{"push":{"changes":[{"new":{"type":"branch","name":"main"}},{"new":null,"old":{"type":"tag","name":"v1"}},{}]}}`, want: event{kind: kindPush, name: "repo:push", refs: []string{"refs/heads/main", "refs/tags/v1"}}},
		"bitbucket server":    {from: "bitbucket", header: map[string]string{"X-Event-Key": "repo:refs_changed"}, body: `{"changes":[{"ref":{"id":"refs/heads/main"}}]}`, want: event{kind: kindPush, name: "repo:refs_changed", refs: main.refs}},
		"bitbucket ping":      {from: "bitbucket", header: map[string]string{"X-Event-Key": "diagnostics:ping"}, body: `{"test":true}`, want: event{kind: kindPing, name: "diagnostics:ping"}},
		"bitbucket fork":      {from: "bitbucket", header: map[string]string{"X-Event-Key": "repo:fork"}, body: `{}`, want: event{kind: kindOther, name: "repo:fork"}},
		"bitbucket malformed": {from: "bitbucket", header: map[string]string{"X-Event-Key": "repo:push"}, body: `{"push":[]}`, refuse: "JSON object"},
		"generic empty":       {from: "generic", body: "\n", want: event{kind: kindPush, name: "delivery"}},
		"generic list":        {from: "generic", body: "[]", want: event{kind: kindPush, name: "delivery"}},
		"generic ref":         {from: "generic", body: `{"ref":"main"}`, want: event{kind: kindPush, name: "delivery", refs: []string{"main"}}},
		"generic malformed":   {from: "generic", body: `now`, refuse: "must be JSON, or empty"},
	} {
		t.Run(name, func(t *testing.T) {
			header := http.Header{}
			header.Set("Content-Type", "application/json")
			for k, v := range tt.header {
				header.Set(k, v)
			}
			got, err := providers[tt.from].read(header, []byte(tt.body))
			if tt.refuse != "" {
				if err == nil || !strings.Contains(err.Error(), tt.refuse) {
					t.Errorf("read %+v, error %v; want one with %q", got, err, tt.refuse)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(event{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestConcerns(t *testing.T) {
	for _, tt := range []struct {
		ref  *v1.GitRef
		refs []string
		want bool
	}{
		{nil, []string{"refs/heads/main"}, true},
		{nil, []string{"main"}, true},
		{nil, []string{"refs/heads/feature/main"}, false},
		{nil, []string{"refs/tags/main"}, false},
		{nil, nil, true},
		{&v1.GitRef{Branch: "release/1.4"}, []string{"refs/heads/x", "refs/heads/release/1.4"}, true},
		{&v1.GitRef{Branch: "release/1.4"}, []string{"refs/heads/main"}, false},
		{&v1.GitRef{Tag: "v1"}, []string{"refs/tags/v1"}, true},
		{&v1.GitRef{Tag: "v1"}, []string{"refs/heads/v1"}, false},
		{&v1.GitRef{Commit: strings.Repeat("0", 40)}, []string{"refs/heads/any"}, true},
	} {
		if got := concerns(tt.ref, tt.refs); got != tt.want {
			t.Errorf("%v follows %v: %t, want %t", tt.ref, tt.refs, got, tt.want)
		}
	}
}
