package load

import "net"

// Echo is the ceiling: a server with a goroutine a connection that finds out
// where a request ends and writes always the same reply. It reads no key, sets
// no deadline and keeps no books, so no server in Go that serves connections
// in this way can do less. It returns when l is closed.
func Echo(l net.Listener, payload []byte) {
	reply := Requests("OK", []string{string(payload)})[0]
	for {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		go echo(nc, reply)
	}
}

func echo(nc net.Conn, reply []byte) {
	defer nc.Close()
	buf := make([]byte, 512)
	for n := 0; n < len(buf); {
		m, err := nc.Read(buf[n:])
		if err != nil {
			return
		}
		n += m
		_, size, err := cut(buf[:n])
		if err != nil {
			return
		}
		if size == 0 {
			continue
		}
		n = copy(buf, buf[size:n])
		if _, err := nc.Write(reply); err != nil {
			return
		}
	}
}
