package capabilities

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice.dev/sluice/sandbox/binaries"
	"sluice.dev/sluice/sandbox/bookinfo"
)

// TestBookinfoIsTheSandboxs: examples/apps/bookinfo.yaml, which people apply, and what the sandbox brings up by itself are the same.
func TestBookinfoIsTheSandboxs(t *testing.T) {
	t.Parallel()
	root, err := binaries.RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	given, err := os.ReadFile(filepath.Join(root, "examples", "apps", "bookinfo.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(bookinfo.Manifests), string(given)); diff != "" {
		t.Errorf("examples/apps/bookinfo.yaml is not sandbox/bookinfo/bookinfo.yaml (-sandbox +examples):\n%s", diff)
	}
}

// TestApplications: those that have no example of their own yet come up and answer.
func TestApplications(t *testing.T) {
	t.Parallel()
	s := newBareStage(t, example{dir: "apps", apps: []string{"httpbin.yaml", "recommendation.yaml", "tcp-echo.yaml"}})
	const httpbin, customer = "http://httpbin:8000/headers", "http://customer:8080/"
	eventually(t, "httpbin answers with both versions", func() (bool, string) {
		seen := s.visit(t, 20, httpbin)
		return seen.versions["v1"] > 0 && seen.versions["v2"] > 0 && seen.statuses[http.StatusOK] == 20, seen.String()
	})
	eventually(t, "the chain answers", func() (bool, string) {
		a := s.get(t, customer)
		return strings.HasPrefix(a.body, "customer => preference => recommendation v"), a.body
	})
	for _, port := range []int{9000, 9001} {
		eventually(t, fmt.Sprintf("tcp-echo answers at %d", port), func() (bool, string) {
			conn, err := s.DialTCP(t.Context(), fmt.Sprintf("tcp-echo:%d", port))
			if err != nil {
				return false, err.Error()
			}
			said := say(conn, "world")
			return said == "one world" || said == "two world", said
		})
	}
}

// say sends a line over a connection, closes it, and gives the line that came back; "" for none.
func say(conn net.Conn, line string) string {
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second)) // of a connection that is there
	if _, err := fmt.Fprintln(conn, line); err != nil {
		return ""
	}
	answer, _ := bufio.NewReader(conn).ReadString('\n') // what came before an end is looked at by the caller
	return strings.TrimSpace(answer)
}
