using Cbd.Memory;

namespace Cbd.Protocol.Format;

/// <summary>
/// Reads and publishes the two copies of a body. A crash in a publication leaves the old value whole, because the
/// newest valid copy is never touched.
/// </summary>
internal static class Body<TMemory>
    where TMemory : struct, ISharedMemory
{
    // Both copies can be torn only if the owner published twice while they were read; that soon passes.
    private const int Attempts = 4;

    /// <summary>
    /// Copies out the newest valid body of exactly this epoch. <paramref name="frame"/> has
    /// <see cref="BodyFrame.SizeBytes"/>; its payload is at <see cref="BodyFrame.PayloadOffset"/>.
    /// </summary>
    public static bool TryRead(in TMemory memory, in BodyPlace place, ulong epoch, Span<byte> frame, out BodyStamp stamp, out int payloadBytes)
    {
        for (int attempt = 0; attempt < Attempts; attempt++)
        {
            if (TryReadNewest(memory, place, epoch, epoch, frame, out stamp, out payloadBytes))
                return true;
        }

        stamp = default;
        payloadBytes = 0;
        return false;
    }

    /// <summary>
    /// Copies out the newest valid body of this epoch or an earlier one: the record that an orphaned backend keeps
    /// while later claims of its entry came to nothing.
    /// </summary>
    public static bool TryReadRecord(in TMemory memory, in BodyPlace place, ulong newestEpoch, Span<byte> frame, out BodyStamp stamp, out int payloadBytes) =>
        TryReadNewest(memory, place, 1, newestEpoch, frame, out stamp, out payloadBytes);

    /// <summary>Stores a sealed frame over a copy that is not the newest valid one.</summary>
    public static void Store(in TMemory memory, in BodyPlace place, int copy, ReadOnlySpan<byte> frame)
    {
        // The other copy, published before, must be visible to everybody before this one stops being valid.
        memory.FullFence();
        memory.Write(place.CopyOffset(copy), frame);
        // Readers check the CRC. It bounds how long the publication can be delayed; and who looks for others with the same disk
        // afterwards sees those that have published before.
        memory.FullFence();
    }

    private static bool TryReadNewest(in TMemory memory, in BodyPlace place, ulong oldestEpoch, ulong newestEpoch, Span<byte> frame, out BodyStamp stamp, out int payloadBytes)
    {
        Span<byte> other = stackalloc byte[BodyFrame.SizeBytes];
        stamp = default;
        payloadBytes = 0;
        for (int copy = 0; copy < 2; copy++)
        {
            // What is checked is this private copy, and that is what is used.
            memory.Read(place.CopyOffset(copy), other);
            if (!BodyFrame.IsValid(other, place, out ulong epoch, out ulong generation, out int length) ||
                epoch < oldestEpoch || epoch > newestEpoch)
                continue;
            var found = new BodyStamp(epoch, generation, copy);
            if (payloadBytes != 0 && found <= stamp)
                continue;
            stamp = found;
            payloadBytes = length;
            other.CopyTo(frame);
        }

        return payloadBytes != 0;
    }
}

/// <summary>The owner's side of one body: remembers which copy is the newest. One thread at a time.</summary>
internal struct BodyWriter<TMemory>
    where TMemory : struct, ISharedMemory
{
    private readonly BodyPlace _place;
    private readonly ulong _epoch;
    private ulong _generation;
    private readonly int _step;
    private int _nextCopy;

    /// <param name="place">Which body.</param>
    /// <param name="epoch">The owner's claim.</param>
    /// <param name="keptCopy">The copy of a record that must stay whole until the first publication is; −1 if there is none.</param>
    /// <param name="keepsNewest">Always; the mutation gate of the tests alone says otherwise.</param>
    public BodyWriter(in BodyPlace place, ulong epoch, int keptCopy = -1, bool keepsNewest = true)
    {
        _place = place;
        _epoch = epoch;
        _step = keepsNewest ? 1 : 0;
        _nextCopy = keptCopy == 0 ? 1 : 0;
    }

    /// <summary>Number of publications so far.</summary>
    public readonly ulong Generation => _generation;

    /// <summary>Seals and stores the next generation. The payload lies at <see cref="BodyFrame.PayloadOffset"/> of the frame.</summary>
    public void Publish(in TMemory memory, Span<byte> frame, int payloadBytes)
    {
        BodyFrame.Seal(frame, payloadBytes, _place, _epoch, checked(_generation + 1));
        // Whole lines, as far as the payload goes: what follows is not read.
        int storedBytes = (BodyFrame.PayloadOffset + payloadBytes + Line.SizeBytes - 1) / Line.SizeBytes * Line.SizeBytes;
        Body<TMemory>.Store(memory, _place, _nextCopy, frame[..storedBytes]);
        _generation++;
        _nextCopy ^= _step;
    }
}

/// <summary>An observer's side of one body: never goes back to an older value than it has returned. One thread at a time.</summary>
internal struct BodyReader<TMemory>
    where TMemory : struct, ISharedMemory
{
    private readonly BodyPlace _place;

    public BodyReader(in BodyPlace place) => _place = place;

    /// <summary>The newest that was returned.</summary>
    public BodyStamp Seen { get; private set; }

    /// <summary>
    /// Copies out the newest valid body of this epoch; false if there is none, or only one that is older than what was
    /// returned before.
    /// </summary>
    public bool TryRead(in TMemory memory, ulong epoch, Span<byte> frame, out int payloadBytes)
    {
        if (!Body<TMemory>.TryRead(memory, _place, epoch, frame, out BodyStamp stamp, out payloadBytes) || stamp < Seen)
            return false;
        Seen = stamp;
        return true;
    }
}
