using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Memory;

public sealed class NativeBufferTests
{
    [Fact]
    public void A_buffer_is_freed_by_its_owner_or_by_the_last_that_has_a_reference()
    {
        var buffer = new NativeBuffer(8192);
        Assert.True(buffer.TryAddReference());
        Assert.True(buffer.TryAddReference());
        buffer.Dispose();
        buffer.Dispose();
        Assert.False(buffer.TryAddReference());
        buffer.GetSpan(8191, 1)[0] = 1;
        buffer.ReleaseReference();
        Assert.NotEqual(0, buffer.Address);
        buffer.ReleaseReference();
        Assert.Throws<ObjectDisposedException>(() => buffer.Address);
        Assert.Throws<ObjectDisposedException>(() => buffer.GetSpan(0, 1).Length);
        Assert.Throws<InvalidOperationException>(buffer.ReleaseReference);
    }

    [Fact]
    public void Whole_pages_are_given_back_and_are_zeroes_then_unless_the_kernel_has_them()
    {
        using var buffer = new NativeBuffer(3 * NativeBuffer.AlignmentBytes);
        Span<byte> bytes = buffer.GetSpan(0, (int)buffer.SizeBytes);
        bytes.Fill(1);
        ProcessMemory.GiveBack(buffer, 1, buffer.SizeBytes - 1);
        Assert.Equal(NativeBuffer.AlignmentBytes, bytes.Count((byte)1));
        Assert.Equal(1, bytes[NativeBuffer.AlignmentBytes - 1]);
        bytes.Fill(1);
        buffer.Pin();
        ProcessMemory.GiveBack(buffer, 0, buffer.SizeBytes);
        Assert.Equal(bytes.Length, bytes.Count((byte)1));
    }

    [Theory]
    [InlineData(-1, 1)]
    [InlineData(8192, 1)]
    [InlineData(8000, 193)]
    [InlineData(0, -1)]
    [InlineData(long.MaxValue, 1)]
    public void A_slice_lies_inside_its_buffer(long offset, int length)
    {
        using var buffer = new NativeBuffer(8192);
        Assert.Throws<ArgumentOutOfRangeException>(() => new BufferSlice(buffer, offset, length));
        Assert.Throws<ArgumentOutOfRangeException>(() => new BufferSlice(null, offset, length));
        Assert.Equal(8192, new BufferSlice(buffer, 0, 8192).Span.Length);
        Assert.Equal(0, default(BufferSlice).Span.Length);
    }
}
