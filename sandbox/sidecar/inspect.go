package sidecar

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
)

// bufferedConn is a connection whose first bytes can be looked at.
type bufferedConn struct {
	net.Conn
	reader *bufio.Reader
}

func newBufferedConn(c net.Conn) *bufferedConn {
	if b, ok := c.(*bufferedConn); ok {
		return b
	}
	return &bufferedConn{Conn: c, reader: bufio.NewReaderSize(c, 16<<10)} // a ClientHello fits
}

func (c *bufferedConn) Read(b []byte) (int, error) { return c.reader.Read(b) }

// CloseWrite ends the connection's writing half, where it has one.
func (c *bufferedConn) CloseWrite() error { return closeWrite(c.Conn) }

func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// inspect waits for the client's first bytes and tells what they are. As
// behind Envoy's inspectors, a client that waits for its server to speak first
// waits in vain.
func (c *bufferedConn) inspect(i inspection) (inspection, error) {
	first, err := c.reader.Peek(1)
	if err != nil {
		return i, err
	}
	if first[0] == 0x16 { // a TLS handshake record
		hello, err := c.clientHello()
		if err != nil {
			return i, err
		}
		i.tls, i.serverName, i.protocols = true, hello.ServerName, hello.SupportedProtos
		return i, nil
	}
	i.protocols = c.httpProtocol()
	return i, nil
}

var errHelloSeen = errors.New("the hello was all that is wanted")

// clientHello reads the hello without consuming it.
func (c *bufferedConn) clientHello() (*tls.ClientHelloInfo, error) {
	var hello *tls.ClientHelloInfo
	err := tls.Server(peekingConn{Conn: c.Conn, reader: &peekReader{buffer: c.reader}}, &tls.Config{
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			hello = h
			return nil, errHelloSeen
		},
	}).HandshakeContext(context.Background()) // it ends with the connection
	if hello == nil {
		return nil, err
	}
	return hello, nil
}

// httpProtocol names the version of HTTP that the client speaks, if any.
func (c *bufferedConn) httpProtocol() []string {
	const preface = "PRI * HTTP/2"
	for n := 1; ; n++ {
		_, err := c.reader.Peek(n)
		seen, _ := c.reader.Peek(c.reader.Buffered()) // all that has arrived, which is no error
		line, _, whole := bytes.Cut(seen, []byte("\n"))
		switch {
		case strings.HasPrefix(string(line), preface):
			return []string{"h2c"}
		case whole && bytes.Contains(line, []byte(" HTTP/1.")):
			return []string{"http/1.1"}
		case whole, err != nil, !methodPrefix(line):
			return nil
		}
		n = len(seen)
	}
}

// methodPrefix tells whether a line may still become an HTTP request's.
func methodPrefix(line []byte) bool {
	method, _, _ := bytes.Cut(line, []byte(" "))
	return len(method) < 20 && !bytes.ContainsFunc(method, func(r rune) bool { return r < 'A' || r > 'Z' })
}

// peekReader reads what is buffered, or still comes, without consuming it.
type peekReader struct {
	buffer *bufio.Reader
	offset int
}

func (r *peekReader) Read(b []byte) (int, error) {
	seen, err := r.buffer.Peek(r.offset + 1)
	if err != nil {
		return 0, err
	}
	seen, err = r.buffer.Peek(max(len(seen), r.buffer.Buffered()))
	if err != nil {
		return 0, err
	}
	n := copy(b, seen[r.offset:])
	r.offset += n
	return n, nil
}

// peekingConn is as much of a connection as reading a hello takes.
type peekingConn struct {
	net.Conn
	reader io.Reader
}

func (c peekingConn) Read(b []byte) (int, error) { return c.reader.Read(b) }
func (peekingConn) Write(b []byte) (int, error)  { return len(b), nil } // an alert that nobody is to see
func (peekingConn) Close() error                 { return nil }
