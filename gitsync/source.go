package gitsync

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"

	v1 "sluice.dev/sluice/api/v1"
)

// DefaultBranch is followed when spec.ref is left out.
const DefaultBranch = "main"

// remoteHelper is the form in which git would run a program.
var remoteHelper = regexp.MustCompile(`^[A-Za-z0-9+.-]*::`)

var fullCommit = regexp.MustCompile(`^[0-9a-f]{40}$`)

// Source is where manifests come from, validated.
type Source struct {
	// URL is http or https and carries no credentials.
	URL *url.URL
	// Ref is what to follow; exactly one of its fields is set.
	Ref v1.GitRef
	// Path inside the repository, cleaned; empty for its root.
	Path string
	// Credentials are what the server wants to see; the zero value is an anonymous client.
	Credentials Credentials
}

// Credentials authenticate the client to the server and the server to the client.
type Credentials struct {
	Username, Password string
	BearerToken        string
	// CA holds PEM certificates that are trusted beside the system's.
	CA []byte
}

// secret tells whether anything in the credentials must not be seen by others.
func (c Credentials) secret() bool { return c.Password != "" || c.BearerToken != "" }

// ParseSource validates spec without asking anyone. Its errors name the field, the value and what would be right.
func ParseSource(spec *v1.GitSyncSpec) (Source, error) {
	if err := refuseLater(spec); err != nil {
		return Source{}, err
	}
	address, err := parseURL(spec.URL)
	if err != nil {
		return Source{}, fmt.Errorf("spec.url: %w", err)
	}
	ref, err := parseRef(spec.Ref)
	if err != nil {
		return Source{}, fmt.Errorf("spec.ref: %w", err)
	}
	folder, err := parsePath(spec.Path)
	if err != nil {
		return Source{}, fmt.Errorf("spec.path: %w", err)
	}
	return Source{URL: address, Ref: ref, Path: folder}, nil
}

// refuseLater repeats what the CRD refuses, for objects that were stored under another CRD.
func refuseLater(spec *v1.GitSyncSpec) error {
	for field, set := range map[string]bool{
		"verify": spec.Verify != nil, "commitStatus": spec.CommitStatus != nil,
		"ref.semver": spec.Ref != nil && spec.Ref.Semver != "",
	} {
		if set {
			return fmt.Errorf("spec.%s does not work yet: leave it out", field)
		}
	}
	return nil
}

func parseURL(raw string) (*url.URL, error) {
	address, err := url.Parse(raw)
	switch {
	case strings.HasPrefix(raw, "-"), remoteHelper.MatchString(raw):
		return nil, fmt.Errorf("%q is no URL that is fetched: must be https or http, such as https://git.example.com/team/app.git", raw)
	case err != nil:
		// The parser's own error quotes the URL, which may hold a password.
		return nil, errors.New("does not parse: must be an https URL such as https://git.example.com/team/app.git")
	case address.User != nil:
		return nil, errors.New("holds credentials: they belong in the Secret that secretRef names")
	case address.Scheme == "ssh":
		return nil, errors.New("ssh does not work yet: use an https URL")
	case address.Scheme != "https" && address.Scheme != "http":
		return nil, fmt.Errorf("%q has the scheme %q: must be https or http", raw, address.Scheme)
	case address.Hostname() == "":
		return nil, fmt.Errorf("%q names no host: must be such as https://git.example.com/team/app.git", raw)
	case address.RawQuery != "" || address.Fragment != "":
		return nil, fmt.Errorf("%q has a query or a fragment: must be the address of a repository alone", address.Redacted())
	}
	if ip, err := netip.ParseAddr(address.Hostname()); err == nil {
		if err := checkAddress(ip); err != nil {
			return nil, err
		}
	}
	return address, nil
}

func parseRef(ref *v1.GitRef) (v1.GitRef, error) {
	if ref == nil || *ref == (v1.GitRef{}) {
		return v1.GitRef{Branch: DefaultBranch}, nil
	}
	given := 0
	for _, field := range []string{ref.Branch, ref.Tag, ref.Commit} {
		if field != "" {
			given++
		}
	}
	if given != 1 {
		return v1.GitRef{}, errors.New("exactly one of branch, tag and commit is needed")
	}
	if ref.Commit != "" && !fullCommit.MatchString(ref.Commit) {
		return v1.GitRef{}, fmt.Errorf("commit %q must be a full SHA-1 of 40 hexadecimal digits", ref.Commit)
	}
	return *ref, nil
}

func parsePath(raw string) (string, error) {
	if strings.HasPrefix(raw, "/") {
		return "", fmt.Errorf("%q is absolute: must be relative to the repository's root, such as deploy/prod", raw)
	}
	for part := range strings.SplitSeq(raw, "/") {
		if part == ".." {
			return "", fmt.Errorf("%q leaves the repository: must be a folder below its root, without '..' in it", raw)
		}
	}
	if clean := path.Clean(raw); clean != "." {
		return clean, nil
	}
	return "", nil
}

// ParseCredentials reads the keys of a Secret: username and password, or bearerToken, and ca.crt. Errors name keys, never values.
func ParseCredentials(secret *corev1.Secret) (Credentials, error) {
	value := func(key string) string { return strings.TrimSpace(string(secret.Data[key])) }
	c := Credentials{Username: value("username"), Password: value("password"), BearerToken: value("bearerToken"), CA: secret.Data["ca.crt"]}
	basic := c.Username != "" || c.Password != ""
	switch {
	case value("identity") != "":
		return Credentials{}, fmt.Errorf("secret %s: identity (ssh) does not work yet: use username and password, or bearerToken", secret.Name)
	case basic && (c.Username == "" || c.Password == ""):
		return Credentials{}, fmt.Errorf("secret %s: username and password are needed together", secret.Name)
	case basic && c.BearerToken != "":
		return Credentials{}, fmt.Errorf("secret %s: has username and password as well as bearerToken: keep one of them", secret.Name)
	case !basic && c.BearerToken == "" && len(c.CA) == 0:
		return Credentials{}, fmt.Errorf("secret %s: has none of the keys username and password, bearerToken, ca.crt", secret.Name)
	}
	return c, nil
}

// WithCredentials returns the source with credentials. It refuses to send them where others could read them.
func (s Source) WithCredentials(c Credentials) (Source, error) {
	if c.secret() && s.URL.Scheme == "http" && !loopback(s.URL.Hostname()) {
		return Source{}, fmt.Errorf("spec.url: %s is plain http, over which credentials are sent to loopback only: use https", s.URL)
	}
	s.Credentials = c
	return s, nil
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || (err == nil && ip.Unmap().IsLoopback())
}

// name of the ref, as people write it.
func refName(ref v1.GitRef) string {
	switch {
	case ref.Commit != "":
		return "commit"
	case ref.Tag != "":
		return ref.Tag
	default:
		return ref.Branch
	}
}
