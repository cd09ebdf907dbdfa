import java.io.FileInputStream;
import java.security.KeyStore;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLSocket;

// A server of JSSE: java Server.java PORT STORE
public class Server {
	public static void main(String[] args) throws Exception {
		char[] password = "secret".toCharArray();
		KeyStore store = KeyStore.getInstance("PKCS12");
		store.load(new FileInputStream(args[1]), password);
		KeyManagerFactory keys = KeyManagerFactory.getInstance("SunX509");
		keys.init(store, password);
		SSLContext context = SSLContext.getInstance("TLS");
		context.init(keys.getKeyManagers(), null, null);
		var listener = context.getServerSocketFactory().createServerSocket(
			Integer.parseInt(args[0]), 50, java.net.InetAddress.getByName("127.0.0.1"));
		while (true) {
			SSLSocket socket = (SSLSocket) listener.accept();
			new Thread(() -> {
				try {
					socket.startHandshake();
					socket.getInputStream().transferTo(java.io.OutputStream.nullOutputStream());
				} catch (Exception e) {
				}
			}).start();
		}
	}
}
