using Cbd.Memory.Sockets;

namespace Cbd.Exports.Nbd.Tls;

/// <summary>
/// A client's socket as the stream below TLS. One thread reads and one writes; each waits as long as it must, and reading
/// ends, as at the end of the stream, when the other side of the relay is over.
/// </summary>
internal sealed class RelayStream(StreamSocket client, StreamSocket inner) : Stream
{
    /// <summary>Reading ended because the other side of the relay did. The reader's to ask.</summary>
    internal bool IsInnerOver { get; private set; }

    public override bool CanRead => true;
    public override bool CanWrite => true;
    public override bool CanSeek => false;
    public override long Length => throw new NotSupportedException();

    public override long Position
    {
        get => throw new NotSupportedException();
        set => throw new NotSupportedException();
    }

    public override int Read(Span<byte> buffer)
    {
        while (true)
        {
            SocketResult result = client.Receive(buffer);
            if (result.Count >= 0)
                return result.Count;
            if (!result.WouldBlock)
                throw new IOException($"the connection failed (errno {result.Error})");
            if (!client.WaitReadable(inner))
            {
                IsInnerOver = true;
                return 0;
            }
        }
    }

    public override void Write(ReadOnlySpan<byte> buffer)
    {
        int error = client.SendAll(buffer);
        if (error != 0)
            throw new IOException($"the connection failed (errno {error})");
    }

    public override int Read(byte[] buffer, int offset, int count) => Read(buffer.AsSpan(offset, count));

    public override void Write(byte[] buffer, int offset, int count) => Write(buffer.AsSpan(offset, count));

    // What TLS does asynchronously even for a caller that waits (its last message) is done at once.
    public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default) => new(Read(buffer.Span));

    public override ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
    {
        Write(buffer.Span);
        return ValueTask.CompletedTask;
    }

    public override void Flush()
    {
    }

    public override Task FlushAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();
}
