package process

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are taken below the kernel's ephemeral range (32768 and up on Linux),
// so that no outgoing connection takes one while its server restarts.
const (
	firstPort = 20000
	lastPort  = 31999
)

// FreePorts returns n different TCP ports that nothing listens on at 127.0.0.1.
func FreePorts(n int) ([]int, error) {
	var held []net.Listener // held until all are found, so that they differ
	defer func() {
		for _, l := range held {
			_ = l.Close()
		}
	}()
	var ports []int
	for tries := 0; len(ports) < n; tries++ {
		if tries > 100+10*n {
			return nil, fmt.Errorf("no %d free TCP ports on 127.0.0.1 between %d and %d", n, firstPort, lastPort)
		}
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", Address(port))
		if err != nil {
			continue
		}
		held = append(held, l)
		ports = append(ports, port)
	}
	return ports, nil
}

// Address is port on the loopback address, as host:port.
func Address(port int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}
