package gitserver_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice.dev/sluice/sandbox/gitserver"
)

func TestPushesAreTold(t *testing.T) {
	server := start(t)
	told := make(chan gitserver.Push, 10)
	server.OnPush(func(p gitserver.Push) { told <- p })
	url, sha := repositoryWithCommit(t, server)
	expect := func(want gitserver.Push) {
		t.Helper()
		if diff := cmp.Diff(want, <-told); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	expect(gitserver.Push{Repository: "bookinfo", Ref: "refs/heads/main", Commit: sha})
	work := clone(t, url)
	for _, args := range [][]string{{"push", "origin", "HEAD:refs/tags/v1"}, {"push", "origin", ":refs/tags/v1"}, {"fetch", "origin"}} {
		if _, err := work.Git(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	expect(gitserver.Push{Repository: "bookinfo", Ref: "refs/tags/v1", Commit: sha})
	expect(gitserver.Push{Repository: "bookinfo", Ref: "refs/tags/v1"})
	server.OnPush(nil)
	if _, err := work.Push(t.Context(), "quietly"); err != nil {
		t.Fatal(err)
	}
	if len(told) > 0 {
		t.Errorf("told %v as well", <-told)
	}
}
