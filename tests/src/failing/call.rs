//! One connection of the service, call after call.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::{Book, Lane, Manner, UnderWay};

/// What a call's headers say.
#[derive(Default)]
struct Head {
    path: String,
    is_shadow: bool,
    body_len: u64,
}

/// Serves a connection's calls until the other side closes it, or it is to be reset.
pub(super) async fn serve_all(connection: TcpStream, book: &watch::Sender<Book>) -> io::Result<()> {
    let mut connection = BufReader::new(connection);
    while let Some(head) = read_head(&mut connection).await? {
        let mut body = (&mut connection).take(head.body_len);
        tokio::io::copy(&mut body, &mut tokio::io::sink()).await?;
        let lane = if head.is_shadow { Lane::Shadow } else { Lane::Normal };
        let call = UnderWay::begin(book, lane, head.path);
        let Some(manner) = manner(&mut connection, lane, book.subscribe()).await? else {
            return Ok(());
        };
        let (answer, then) = written(manner);
        connection.write_all(answer.as_bytes()).await?;
        match then {
            Then::Next => drop(call),
            // until the other side is gone
            Then::Hold => return connection.fill_buf().await.map(drop),
            Then::Close => return Ok(()),
            Then::Reset => return connection.get_ref().set_zero_linger(),
        }
    }
    Ok(())
}

async fn read_head(connection: &mut BufReader<TcpStream>) -> io::Result<Option<Head>> {
    let mut request_line = String::new();
    if connection.read_line(&mut request_line).await? == 0 {
        return Ok(None);
    }
    let path = request_line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut head = Head { path, ..Head::default() };
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(':') else { return Ok(Some(head)) };
        match name {
            "baggage" => head.is_shadow |= value.contains("shadow=true"),
            "content-length" => head.body_len = value.trim().parse().map_err(io::Error::other)?,
            _ => {}
        }
    }
}

/// The manner in which a call is to be served when it is time for that; `None` when its caller left before.
async fn manner(
    connection: &mut BufReader<TcpStream>,
    lane: Lane,
    mut book: watch::Receiver<Book>,
) -> io::Result<Option<Manner>> {
    let due = async {
        let spoken = book.wait_for(|book| book.manner(lane) != Manner::Hang).await;
        let manner = spoken.map_err(io::Error::other)?.manner(lane);
        if let Manner::Late(_, after) = manner {
            tokio::time::sleep(after).await;
        }
        Ok(Some(manner))
    };
    tokio::select! {
        manner = due => manner,
        // Envoy sends nothing more before the answer has come: this is the end
        _ = connection.fill_buf() => Ok(None),
    }
}

/// What follows what is written.
enum Then {
    Next,
    Hold,
    Close,
    Reset,
}

fn written(manner: Manner) -> (String, Then) {
    let grpc = "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\n";
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_owned();
    match manner {
        Manner::Status(status) | Manner::Late(status, _) => {
            (format!("HTTP/1.1 {status} As-Told\r\ncontent-length: 4\r\n\r\ntold"), Then::Next)
        }
        Manner::GrpcTrailers(status) => {
            let chunks = format!("5\r\n\0\0\0\0\0\r\n0\r\ngrpc-status: {status}\r\n\r\n");
            let head = "transfer-encoding: chunked\r\ntrailer: grpc-status\r\n\r\n";
            (format!("{grpc}{head}{chunks}"), Then::Next)
        }
        Manner::GrpcAlone(status) => {
            (format!("{grpc}grpc-status: {status}\r\ncontent-length: 0\r\n\r\n"), Then::Next)
        }
        Manner::ResetAmid => (half, Then::Reset),
        Manner::HangAmid => (half, Then::Hold),
        Manner::Nonsense => ("what?\r\n\r\n".to_owned(), Then::Close),
        Manner::Close => (String::new(), Then::Close),
        Manner::ResetBefore | Manner::Hang => (String::new(), Then::Reset),
    }
}
