namespace Cbd.Protocol.Format;

/// <summary>
/// One entry of the host area. Reserved bytes are zero.
/// <list type="table">
/// <item><term>0, 8</term><description><see cref="ClaimWord"/>; compare-and-swap by the host and by who clears it</description></item>
/// <item><term>128, 8</term><description>change counter: raised by the host, release, after it made an offer or another
/// change that the other hosts should look at; an acquire load sees what was stored before</description></item>
/// <item><term>256, 4</term><description>doorbell: 1 = the host's housekeeping sleeps; set by the host, swapped to 0 by
/// whoever wakes it. A hint: bounded sleeps make its loss a delay</description></item>
/// <item><term>512, 768</term><description>body, copy 0 (<see cref="BodyFrame"/> of a <see cref="HostBody"/>); the host</description></item>
/// <item><term>1280, 768</term><description>body, copy 1</description></item>
/// </list>
/// </summary>
internal static class HostEntry
{
    public const int SizeBytes = 2048;
    public const int ClaimOffset = 0;
    public const int ChangeCounterOffset = 128;
    public const int DoorbellOffset = 256;
    public const int BodyOffset = 512;

    public static IReadOnlyList<FieldLayout> Layout { get; } =
    [
        new("claim", ClaimOffset, 8),
        new("change_counter", ChangeCounterOffset, 8),
        new("doorbell", DoorbellOffset, 4),
        new("body_0", BodyOffset, BodyFrame.SizeBytes),
        new("body_1", BodyOffset + BodyFrame.SizeBytes, BodyFrame.SizeBytes),
    ];
}
