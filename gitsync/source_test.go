package gitsync

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	v1 "sluice.dev/sluice/api/v1"
)

func TestParseSourceURL(t *testing.T) {
	for url, want := range map[string]string{
		"https://git.example.com/team/app.git":      "",
		"https://git.example.com:8443/app":          "",
		"http://git.example.com/app.git":            "",
		"http://127.0.0.1:3000/app.git":             "",
		"https://[2001:db8::1]/app.git":             "",
		"":                                          "has the scheme",
		"git.example.com/team/app.git":              "has the scheme",
		"file:///etc":                               `has the scheme "file"`,
		"/srv/git/app.git":                          "has the scheme",
		"git://git.example.com/app.git":             `has the scheme "git"`,
		"ssh://git@git.example.com/app.git":         "credentials",
		"ssh://git.example.com/app.git":             "ssh does not work yet",
		"ext::sh -c touch% /tmp/x":                  "is no URL that is fetched",
		"-upload-pack=x":                            "is no URL that is fetched",
		"--upload-pack=touch /tmp/x":                "is no URL that is fetched",
		"https://":                                  "names no host",
		"https:///app.git":                          "names no host",
		"https://ada:s3same@git.example.com/app":    "credentials",
		"https://ada:s3same%zz@git.example.com/app": "does not parse",
		"https://git.example.com/app?x=1":           "query",
		"https://git.example.com/app#x":             "fragment",
		"http://169.254.169.254/latest/meta-data":   "is refused",
		"http://[fe80::1]/app":                      "is refused",
		"http://[fd00:ec2::254]/app":                "is refused",
		"http://[::ffff:169.254.169.254]/app":       "is refused",
		"http://[64:ff9b::a9fe:a9fe]/app":           "is refused",
		"http://100.100.100.200/app":                "is refused",
		"http://0.0.0.0/app":                        "is refused",
	} {
		_, err := ParseSource(&v1.GitSyncSpec{URL: url})
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", url, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "spec.url: ")):
			t.Errorf("%s: got %v, want %q", url, err, want)
		case err != nil && strings.Contains(err.Error(), "s3same"):
			t.Errorf("the error repeats a password: %v", err)
		}
	}
}

func TestParseSource(t *testing.T) {
	commit := strings.Repeat("a", 40)
	for name, tc := range map[string]struct {
		change func(*v1.GitSyncSpec)
		ref    v1.GitRef
		path   string
		err    string
	}{
		"defaults":      {ref: v1.GitRef{Branch: "main"}},
		"empty ref":     {change: func(s *v1.GitSyncSpec) { s.Ref = &v1.GitRef{} }, ref: v1.GitRef{Branch: "main"}},
		"tag":           {change: func(s *v1.GitSyncSpec) { s.Ref = &v1.GitRef{Tag: "v1"} }, ref: v1.GitRef{Tag: "v1"}},
		"commit":        {change: func(s *v1.GitSyncSpec) { s.Ref = &v1.GitRef{Commit: commit} }, ref: v1.GitRef{Commit: commit}},
		"short commit":  {change: func(s *v1.GitSyncSpec) { s.Ref = &v1.GitRef{Commit: "abc1234"} }, err: "spec.ref: commit \"abc1234\" must be a full SHA-1"},
		"two refs":      {change: func(s *v1.GitSyncSpec) { s.Ref = &v1.GitRef{Branch: "a", Tag: "b"} }, err: "spec.ref: exactly one"},
		"semver":        {change: func(s *v1.GitSyncSpec) { s.Ref = &v1.GitRef{Semver: "1.x"} }, err: "spec.ref.semver does not work yet"},
		"path":          {change: func(s *v1.GitSyncSpec) { s.Path = "./deploy//prod/" }, ref: v1.GitRef{Branch: "main"}, path: "deploy/prod"},
		"root":          {change: func(s *v1.GitSyncSpec) { s.Path = "./" }, ref: v1.GitRef{Branch: "main"}},
		"absolute path": {change: func(s *v1.GitSyncSpec) { s.Path = "/deploy" }, err: "spec.path: \"/deploy\" is absolute"},
		"path upwards":  {change: func(s *v1.GitSyncSpec) { s.Path = "deploy/../../x" }, err: "spec.path: \"deploy/../../x\" leaves"},
		"prune":         {change: func(s *v1.GitSyncSpec) { s.Prune = ptr.To(true) }, ref: v1.GitRef{Branch: "main"}},
		"no prune":      {change: func(s *v1.GitSyncSpec) { s.Prune = ptr.To(false) }, ref: v1.GitRef{Branch: "main"}},
		"verify":        {change: func(s *v1.GitSyncSpec) { s.Verify = &v1.Verify{} }, err: "spec.verify does not work yet"},
		"commitStatus":  {change: func(s *v1.GitSyncSpec) { s.CommitStatus = &v1.CommitStatus{} }, err: "spec.commitStatus does not work yet"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := &v1.GitSyncSpec{URL: "https://git.example.com/app.git"}
			if tc.change != nil {
				tc.change(spec)
			}
			source, err := ParseSource(spec)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("got %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil || source.Ref != tc.ref || source.Path != tc.path {
				t.Errorf("got %+v, %q, %v", source.Ref, source.Path, err)
			}
		})
	}
}

func TestCredentials(t *testing.T) {
	for name, tc := range map[string]struct {
		data map[string]string
		want Credentials
		err  string
	}{
		"basic":         {data: map[string]string{"username": "ada", "password": "p\n"}, want: Credentials{Username: "ada", Password: "p"}},
		"bearer":        {data: map[string]string{"bearerToken": "t"}, want: Credentials{BearerToken: "t"}},
		"ca alone":      {data: map[string]string{"ca.crt": "PEM"}, want: Credentials{CA: []byte("PEM")}},
		"no password":   {data: map[string]string{"username": "ada"}, err: "needed together"},
		"no username":   {data: map[string]string{"password": "hush"}, err: "needed together"},
		"both":          {data: map[string]string{"username": "ada", "password": "hush", "bearerToken": "hush"}, err: "keep one of them"},
		"ssh":           {data: map[string]string{"identity": "hush"}, err: "identity (ssh) does not work yet"},
		"none":          {data: map[string]string{"user": "ada"}, err: "has none of the keys"},
		"empty at all":  {err: "has none of the keys"},
		"blank bearer ": {data: map[string]string{"bearerToken": " \n"}, err: "has none of the keys"},
	} {
		t.Run(name, func(t *testing.T) {
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "git"}, Data: map[string][]byte{}}
			for key, value := range tc.data {
				secret.Data[key] = []byte(value)
			}
			got, err := ParseCredentials(secret)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) || strings.Contains(err.Error(), "hush") {
					t.Errorf("got %v, want %q", err, tc.err)
				}
				return
			}
			if diff := cmp.Diff(tc.want, got); err != nil || diff != "" {
				t.Errorf("%v %s", err, diff)
			}
		})
	}
}

func TestWithCredentials(t *testing.T) {
	password, authority := Credentials{Username: "ada", Password: "hush"}, Credentials{CA: []byte("PEM")}
	for url, tc := range map[string]struct {
		credentials Credentials
		ok          bool
	}{
		"https://git.example.com/app":   {password, true},
		"http://localhost:3000/app":     {password, true},
		"http://127.0.0.9/app":          {password, true},
		"http://[::1]/app":              {password, true},
		"http://git.example.com/app":    {password, false},
		"http://10.0.0.1/app":           {password, false},
		"http://localhost.evil.com/app": {password, false},
		"http://plain.example.com/app":  {authority, true},
	} {
		_, err := (Source{URL: mustParse(t, url)}).WithCredentials(tc.credentials)
		if (err == nil) != tc.ok || (err != nil && strings.Contains(err.Error(), "hush")) {
			t.Errorf("%s: %v, want ok %t", url, err, tc.ok)
		}
	}
}

func TestCheckDial(t *testing.T) {
	for address, ok := range map[string]bool{
		"127.0.0.1:443": true, "10.1.2.3:443": true, "[2001:db8::1]:443": true,
		"169.254.169.254:80": false, "[fe80::1%eth0]:80": false, "224.0.0.1:80": false, "[::]:80": false, "nonsense": false,
	} {
		if err := checkDial("tcp", address, nil); (err == nil) != ok {
			t.Errorf("%s: %v, want ok %t", address, err, ok)
		}
	}
	if err := checkAddress(netip.MustParseAddr("168.63.129.16")); err == nil {
		t.Error("a cloud's own address is dialled")
	}
}
