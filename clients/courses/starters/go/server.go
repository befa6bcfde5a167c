// Greets each client, one after another, and reads what it sends. The rest is yours.
package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
)

func serve(client net.Conn) {
	defer client.Close()
	client.Write([]byte("*"))
	bytes := make([]byte, 4096)
	for {
		if _, err := client.Read(bytes); err != nil {
			return
		}
		// stage 2: answer them
	}
}

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() { <-stop; os.Exit(0) }()
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[len(os.Args)-1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
	for {
		if client, err := listener.Accept(); err == nil {
			serve(client)
		}
	}
}
