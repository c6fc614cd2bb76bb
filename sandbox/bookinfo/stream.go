package bookinfo

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"net"
)

// spelled are the prefixes that the sample's versions answer with.
var spelled = map[string]string{"v1": "one", "v2": "two", "v3": "three"}

// ServeTCP answers each line of every connection with the prefix of the app's
// version and the line: PREFIX of its environment, else "one" for v1 and so
// on. It ends with its listener. Misbehaving, it closes connections.
func (a *App) ServeTCP(l net.Listener) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go a.echoLines(ctx, conn)
	}
}

func (a *App) echoLines(ctx context.Context, conn net.Conn) {
	defer conn.Close()                                          //nolint:errcheck // nothing is left to be said
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })() // with the app
	prefix := a.options.Env["PREFIX"]
	if prefix == "" {
		prefix = spelled[a.options.Version]
	}
	if prefix == "" {
		prefix = a.options.Version
	}
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		if !a.mayAnswer(ctx) {
			return
		}
		if _, err := fmt.Fprintf(conn, "%s %s\n", prefix, lines.Text()); err != nil {
			return
		}
	}
}

// mayAnswer is the present misbehaviour: it waits, and tells whether this
// request is one to be answered.
func (a *App) mayAnswer(ctx context.Context) bool {
	m := *a.misbehave.Load()
	if m.Latency > 0 && !pause(ctx, m.Latency) {
		return false
	}
	n := float64(a.requests.Add(1))
	return math.Floor(n*m.ErrorRate) <= math.Floor((n-1)*m.ErrorRate)
}
