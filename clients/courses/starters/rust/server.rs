// Greets each client, one after another, and reads what it sends. The rest is yours.
use std::io::{Read, Result, Write};
use std::net::{TcpListener, TcpStream};

// Rust's library has no signals: these two functions are C's.
extern "C" {
    fn signal(signum: i32, handler: extern "C" fn(i32)) -> usize;
    fn _exit(status: i32) -> !;
}
const SIGTERM: i32 = 15;

extern "C" fn stop(_: i32) {
    unsafe { _exit(0) }
}

fn serve(mut client: TcpStream) -> Result<()> {
    client.write_all(b"*")?;
    let mut bytes = [0; 4096];
    while client.read(&mut bytes)? > 0 {
        // stage 2: answer them
    }
    Ok(())
}

fn main() -> Result<()> {
    unsafe { signal(SIGTERM, stop) };
    let port = std::env::args().last().unwrap_or_default();
    let listener = TcpListener::bind(format!("127.0.0.1:{port}"))?;
    for client in listener.incoming().flatten() {
        let _ = serve(client); // a client that is lost ends nothing else
    }
    Ok(())
}
