package socketmap_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"

	"tlspolicyd/socketmap"
)

// fixed is a Handler with one key.
type fixed struct{}

func (fixed) Lookup(_ context.Context, name, key []byte) []byte {
	switch {
	case string(name) != "postfix":
		return fmt.Appendf(nil, "PERM unknown map %.50q", name)
	case bytes.EqualFold(key, []byte("example.com")):
		return []byte("OK dane-only")
	}
	return []byte("NOTFOUND ")
}

func ExampleServer() {
	dir, err := os.MkdirTemp("", "socketmap")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	address := "unix:" + filepath.Join(dir, "socket")

	l, err := socketmap.Listen(context.Background(), address, socketmap.ListenOptions{Mode: 0o660})
	if err != nil {
		log.Fatal(err)
	}
	server := &socketmap.Server{Handler: fixed{}}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()

	client, err := socketmap.NewClient(address)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	for _, key := range []string{"example.com", "example.org"} {
		reply, err := client.Lookup(context.Background(), "postfix", key)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %q\n", key, reply)
	}

	if err := server.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-served)
	// Output:
	// example.com: "OK dane-only"
	// example.org: "NOTFOUND "
	// socketmap: server closed
}

func ExampleClient() {
	// A server of one request, to show what is sent.
	near, far := net.Pipe()
	go func() {
		request := make([]byte, 100)
		n, _ := far.Read(request)
		fmt.Printf("request %q\n", request[:n])
		fmt.Fprint(far, "14:TEMP no answer,")
	}()
	client := socketmap.NewClientFunc("pipe", func(context.Context) (net.Conn, error) { return near, nil })
	defer client.Close()

	reply, err := client.Lookup(context.Background(), "postfix", "example.com")
	if err != nil {
		log.Fatal(err)
	}
	if reply.Status == socketmap.Temp {
		fmt.Println("Postfix defers:", reply.Value)
	}
	// Output:
	// request "19:postfix example.com,"
	// Postfix defers: no answer
}
