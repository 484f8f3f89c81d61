namespace Cbd.Protocol.Format;

/// <summary>
/// One entry of the backend area. Reserved bytes are zero.
/// <list type="table">
/// <item><term>0, 8</term><description><see cref="ClaimWord"/>; its epoch is the session; compare-and-swap by the owner,
/// by who takes over and by who clears</description></item>
/// <item><term>128, 8</term><description><see cref="WriterWord"/> of the one blkdev that may write; compare-and-swap by
/// that blkdev's host and by who clears it</description></item>
/// <item><term>256, 8</term><description>change counter: raised by the owner, release, after it published a body with
/// another content in the same session (size, flush error)</description></item>
/// <item><term>512, 768</term><description>body, copy 0 (<see cref="BodyFrame"/> of a <see cref="BackendBody"/>); the
/// owner</description></item>
/// <item><term>1280, 768</term><description>body, copy 1</description></item>
/// </list>
/// </summary>
internal static class BackendEntry
{
    public const int SizeBytes = 2048;
    public const int ClaimOffset = 0;
    public const int WriterOffset = 128;
    public const int ChangeCounterOffset = 256;
    public const int BodyOffset = 512;

    public static IReadOnlyList<FieldLayout> Layout { get; } =
    [
        new("claim", ClaimOffset, 8),
        new("writer", WriterOffset, 8),
        new("change_counter", ChangeCounterOffset, 8),
        new("body_0", BodyOffset, BodyFrame.SizeBytes),
        new("body_1", BodyOffset + BodyFrame.SizeBytes, BodyFrame.SizeBytes),
    ];
}

/// <summary>
/// Which blkdev may write to a backend; all zero: none.
/// <list type="table">
/// <item><term>bits 0–39</term><description>epoch of the blkdev's claim, never 0</description></item>
/// <item><term>bits 40–63</term><description>id of the blkdev</description></item>
/// </list>
/// </summary>
internal readonly record struct WriterWord(ulong Raw)
{
    public WriterWord(int blkdev, ulong epoch)
        : this(((ulong)blkdev << 40) | (epoch & ClaimWord.MaxEpoch))
    {
    }

    /// <summary>No blkdev may write. An epoch is never 0, so no blkdev's word is this.</summary>
    public static WriterWord None => default;

    public int Blkdev => (int)(Raw >> 40);

    public ulong Epoch => Raw & ClaimWord.MaxEpoch;
}
