namespace Cbd.Protocol.Format;

/// <summary>
/// One entry of the blkdev area. Reserved bytes are zero.
/// <list type="table">
/// <item><term>0, 8</term><description><see cref="ClaimWord"/>; compare-and-swap by the owner and by who clears it</description></item>
/// <item><term>512, 768</term><description>body, copy 0 (<see cref="BodyFrame"/> of a <see cref="BlkdevBody"/>); the
/// owner</description></item>
/// <item><term>1280, 768</term><description>body, copy 1</description></item>
/// </list>
/// </summary>
internal static class BlkdevEntry
{
    public const int SizeBytes = 2048;
    public const int ClaimOffset = 0;
    public const int BodyOffset = 512;

    public static IReadOnlyList<FieldLayout> Layout { get; } =
    [
        new("claim", ClaimOffset, 8),
        new("body_0", BodyOffset, BodyFrame.SizeBytes),
        new("body_1", BodyOffset + BodyFrame.SizeBytes, BodyFrame.SizeBytes),
    ];
}
