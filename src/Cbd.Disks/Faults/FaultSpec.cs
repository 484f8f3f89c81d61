using System.Globalization;
using System.Text;
using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Disks;

/// <summary>What a fault does to a request that it strikes.</summary>
public enum FaultKind
{
    /// <summary>It fails with an errno, and does not reach the disk.</summary>
    Error,

    /// <summary>It reaches the disk later.</summary>
    Delay,

    /// <summary>The kernel is asked for a part of a read or write only, so that what is left must be asked for again.</summary>
    Short,

    /// <summary>It does not reach the disk before the faults of the disk are changed.</summary>
    Stuck,
}

/// <summary>
/// One fault as an operator writes it: <c>KIND[,key=value…]</c>. Two disks with equal specs that get equal requests in
/// equal order are struck at the same ones.
/// </summary>
public sealed record FaultSpec
{
    /// <summary>Most faults of one disk at once.</summary>
    public const int MaxPerDisk = 32;

    public FaultKind Kind { get; init; }

    /// <summary>The operation that is struck; null for any.</summary>
    public BlockOperation? Operation { get; init; }

    /// <summary>Probability for each request that it covers, above 0, at most 1.</summary>
    public double Rate { get; init; } = 1;

    /// <summary>The requests that touch [Offset, Offset + Length) are struck, bytes.</summary>
    public long Offset { get; init; }

    /// <inheritdoc cref="Offset"/>
    public long Length { get; init; } = long.MaxValue;

    /// <summary>Strikes no more after so many; null for no end.</summary>
    public long? Count { get; init; }

    /// <summary>What the probability is drawn from.</summary>
    public ulong Seed { get; init; } = 1;

    /// <summary>Errno of an <see cref="FaultKind.Error"/>, positive.</summary>
    public int Errno { get; init; } = Memory.Errno.EIO;

    /// <summary>Time of a <see cref="FaultKind.Delay"/>, milliseconds.</summary>
    public int DelayMs { get; init; }

    /// <summary>It covers a part of the disk, which requests without a range (flush) are never in.</summary>
    public bool HasRange => Offset != 0 || Length != long.MaxValue;

    /// <summary>Parses one spec.</summary>
    /// <exception cref="CbdException">It is not one: names the key, the value and what to write.</exception>
    public static FaultSpec Parse(string text) => FaultText.Parse(text);

    /// <summary>Parses all specs for one disk; <c>off</c>, alone, is none.</summary>
    /// <inheritdoc cref="Parse"/>
    public static IReadOnlyList<FaultSpec> ParseAll(IReadOnlyList<string> texts)
    {
        if (texts is ["off"])
            return [];
        if (texts.Contains("off"))
            throw new CbdException(CbdErrorKind.Invalid, "fault 'off' is given with others; give it alone, or leave it out");
        if (texts.Count > MaxPerDisk)
            throw new CbdException(CbdErrorKind.Invalid, $"{texts.Count} faults are given for one disk; at most {MaxPerDisk} are possible");
        return [.. texts.Select(Parse)];
    }

    /// <summary>The spec as it can be given again, without what is the default.</summary>
    public override string ToString()
    {
        var text = new StringBuilder(FaultText.Name(Kind));
        if (Operation is { } operation)
            text.Append(",op=").Append(FaultText.Name(operation));
        if (Kind == FaultKind.Error)
            text.Append(",errno=").Append(FaultText.NameOfErrno(Errno));
        if (Kind == FaultKind.Delay)
            text.Append(CultureInfo.InvariantCulture, $",ms={DelayMs}");
        if (Rate < 1)
            text.Append(CultureInfo.InvariantCulture, $",rate={Rate:0.####################}");
        if (Offset != 0)
            text.Append(CultureInfo.InvariantCulture, $",offset={Offset}");
        if (Length != long.MaxValue)
            text.Append(CultureInfo.InvariantCulture, $",length={Length}");
        if (Count is { } count)
            text.Append(CultureInfo.InvariantCulture, $",count={count}");
        if (Rate < 1 || Kind == FaultKind.Short)
            text.Append(CultureInfo.InvariantCulture, $",seed={Seed}");
        return text.ToString();
    }
}
