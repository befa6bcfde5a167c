// Greets each client, one after another, and reads what it sends. The rest is yours.
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;

public class Server {
    static void serve(Socket client) throws IOException {
        client.getOutputStream().write('*');
        byte[] bytes = new byte[4096];
        while (client.getInputStream().read(bytes) > 0) {
            // stage 2: answer them
        }
    }

    public static void main(String[] arguments) throws IOException {
        // On SIGTERM Java runs this, and would then exit with status 143.
        Runtime.getRuntime().addShutdownHook(new Thread(() -> Runtime.getRuntime().halt(0)));
        int port = Integer.parseInt(arguments[arguments.length - 1]);
        ServerSocket listener;
        try {
            listener = new ServerSocket(port, 100, InetAddress.getByName("127.0.0.1"));
        } catch (IOException error) {
            System.err.println("server: " + error.getMessage());
            Runtime.getRuntime().halt(1); // not exit(), which runs the hook above
            return;
        }
        while (true) {
            try (Socket client = listener.accept()) {
                serve(client);
            } catch (IOException error) {
                // the client is lost, and nothing else
            }
        }
    }
}
